"""Where a server is, as people write it.

http://localhost:8080    without TLS
https://faas.example     with TLS; port 443 unless it names one
localhost:8080           without TLS on this machine, with TLS elsewhere
unix:/run/faas.sock      without TLS
"""

import ipaddress
from dataclasses import dataclass
from urllib.parse import urlsplit

from faas.errors import InvalidSettings

DEFAULT_ADDRESS = "http://localhost:8080"
_PORTS = {"http": 8080, "https": 443}


@dataclass(frozen=True)
class Address:
    """Where to connect to, and how."""

    target: str
    """As gRPC names it: `host:port`, `unix:/path`."""
    secure: bool
    """With TLS."""
    local: bool
    """On this machine: no proxy is asked."""

    @classmethod
    def parse(cls, text: str) -> "Address":
        """The address that `text` says. Raises InvalidSettings."""
        if text.startswith("unix:"):
            return cls(text, secure=False, local=True)
        try:
            parts = urlsplit(text if "://" in text else f"//{text}")
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise _invalid(text, str(error)) from error
        if not host:
            raise _invalid(text, "it names no host")
        if parts.username is not None or parts.path.strip("/") or parts.query or parts.fragment:
            raise _invalid(text, "it must be a scheme, a host and a port, and no more")
        local = _is_loopback(host)
        scheme = parts.scheme or ("http" if local else "https")
        if scheme not in _PORTS:
            raise _invalid(text, f"the scheme {scheme} is not http or https")
        shown = f"[{host}]" if ":" in host else host
        return cls(f"{shown}:{port or _PORTS[scheme]}", scheme == "https", local)

    def __str__(self) -> str:
        """As a URL."""
        if self.target.startswith("unix:"):
            return self.target
        return f"{'https' if self.secure else 'http'}://{self.target}"


def _is_loopback(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _invalid(text: str, why: str) -> InvalidSettings:
    return InvalidSettings(
        f"{text!r} is no address of a server: {why}. Write it as http://localhost:8080."
    )
