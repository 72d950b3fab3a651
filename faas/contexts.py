"""Servers by name: what the command and the SDK talk to unless told otherwise.

One small file of the user's, `contexts.toml` in `$XDG_CONFIG_HOME/faas`:

    current = "work"

    [contexts.work]
    server = "https://faas.example"
    token = "…"

What decides, first to last: what a caller passes; `FAAS_SERVER` and `FAAS_TOKEN`;
`FAAS_CONTEXT`; the file's current context; `http://localhost:8080`. A token goes to
the server that it was given for, and to no other.
"""

import json
import os
import tempfile
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from faas.address import DEFAULT_ADDRESS, Address
from faas.errors import InvalidSettings


@dataclass(frozen=True)
class Server:
    """Where to, and as whom."""

    address: str = DEFAULT_ADDRESS
    token: str | None = None
    certificate: str | None = None
    """The file of a private authority's certificate, where the server's is of one."""


@dataclass(frozen=True)
class Contexts:
    """The file's content."""

    current: str = ""
    servers: Mapping[str, Server] = field(default_factory=dict)

    def named(self, name: str) -> Server:
        """The server of a context. Raises InvalidSettings."""
        if name not in self.servers:
            known = ", ".join(sorted(self.servers)) or "none yet: make one by `faas context set`"
            raise InvalidSettings(f"There is no context {name!r}. There are: {known}.")
        return self.servers[name]

    def with_server(self, name: str, server: Server) -> "Contexts":
        """With a context more, or another one of that name; the first one is current."""
        return replace(self, current=self.current or name, servers={**self.servers, name: server})

    def without(self, name: str) -> "Contexts":
        """With a context less."""
        self.named(name)
        left = {key: server for key, server in self.servers.items() if key != name}
        return Contexts("" if self.current == name else self.current, left)


def path(environment: Mapping[str, str] = os.environ) -> Path:
    """Where the file is."""
    base = environment.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "faas" / "contexts.toml"


def load(file: Path) -> Contexts:
    """What `file` says; nothing if it is not there. Raises InvalidSettings."""
    try:
        with file.open("rb") as stream:
            found = tomllib.load(stream)
        servers = {
            str(name): Server(entry["server"], entry.get("token"), entry.get("certificate"))
            for name, entry in found.get("contexts", {}).items()
        }
        for server in servers.values():
            Address.parse(server.address)
        return Contexts(found.get("current", ""), servers)
    except FileNotFoundError:
        return Contexts()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidSettings(f"{file} cannot be read: {error}. Mend it, or remove it.") from error


def save(file: Path, contexts: Contexts) -> None:
    """Write `file` whole or not at all, for its owner's eyes: it may hold tokens."""
    lines = [f"current = {_quoted(contexts.current)}\n"] if contexts.current else []
    for name, server in sorted(contexts.servers.items()):
        lines.append(f"\n[contexts.{_quoted(name)}]\nserver = {_quoted(server.address)}\n")
        if server.token:
            lines.append(f"token = {_quoted(server.token)}\n")
        if server.certificate:
            lines.append(f"certificate = {_quoted(server.certificate)}\n")
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile("w", dir=file.parent, delete=False, encoding="utf-8") as new:
        new.writelines(lines)
    Path(new.name).replace(file)


def choose(
    address: str | None = None,
    token: str | None = None,
    context: str | None = None,
    environment: Mapping[str, str] = os.environ,
) -> Server:
    """The server to talk to. Raises InvalidSettings."""
    address = address or (None if context else environment.get("FAAS_SERVER")) or None
    found = _of_context(context or environment.get("FAAS_CONTEXT"), address, environment)
    token = token or environment.get("FAAS_TOKEN") or None
    return replace(found, address=address or found.address, token=token or found.token)


def _of_context(name: str | None, address: str | None, environment: Mapping[str, str]) -> Server:
    contexts = load(path(environment))
    name = name or contexts.current
    server = contexts.named(name) if name else Server()
    if address and Address.parse(address) != Address.parse(server.address):
        return Server()  # somebody else's token stays here
    return server


def _quoted(text: str) -> str:
    # A JSON string is a TOML one, but for what JSON may leave as it is.
    return json.dumps(text).replace("\x7f", "\\u007f")
