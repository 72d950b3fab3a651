"""`faas doctor`: finds what is wrong between this machine and a platform, and says the cure.

Each examination goes one step further than the one before: this machine, name, port,
protocol, credential, parts, workers, work. The first that fails ends it: what comes
after would only say the same again.
"""

import email.utils
import http.client
import json
import os
import socket
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from faas import __version__, contexts, errors
from faas.address import Address
from faas.cli.failures import ExitCode, explain
from faas.cli.findings import EXAMINATIONS_GROUP, Finding, Level, bad, good, warning
from faas.cli.output import Format, printable, table, write_json
from faas.cli.session import Session
from faas.v1.invocation_pb2 import Invocation
from faas.v1.worker_pb2 import Worker

if TYPE_CHECKING:
    from faas.client import Client

CONNECT_S = 5.0
CLOCK_S = 30.0
STUCK = timedelta(minutes=5)
_PROXIES = ("https_proxy", "HTTPS_PROXY", "http_proxy", "HTTP_PROXY", "grpc_proxy")


def doctor(
    ctx: typer.Context,
    *,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            help="Where the data of this machine's platform is, as `faas up` was told.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[Format, typer.Option("--output", "-o", help="table or json.")] = Format.TABLE,
) -> None:
    """Find what is wrong between this machine and the platform, and say the cure.

    Exit code 0: nothing is; 5: something cannot work.
    """
    found = list(examine(ctx.ensure_object(Session), data_dir))
    if output is Format.JSON:
        write_json([{"level": f.level, "what": f.what, "cure": f.cure} for f in found])
    else:
        colours = {"good": "32", "warning": "33", "bad": "31;1"}
        rows = [[f.level, printable(f.what)] for f in found]
        table(["", "FOUND"], rows, colours)
        for finding in found:
            if finding.cure:
                print(f"\n{printable(finding.what)}\n  -> {printable(finding.cure)}")
    if any(f.level is Level.BAD for f in found):
        raise typer.Exit(ExitCode.UNAVAILABLE)


def examine(session: Session, data_dir: Path | None = None) -> Iterator[Finding]:
    """All that is found, until the first thing that cannot work."""
    try:
        server = contexts.choose(session.server, None, session.context)
        address = Address.parse(server.address)
    except errors.InvalidSettings as error:
        yield bad(str(error), "Mend it there, or say --server URL.")
        return
    yield good(f"faas {__version__} talks to {address}")
    for finding in _machine(address, data_dir):
        yield finding
        if finding.level is Level.BAD:
            return
    for examination in (_resolves, _listens, _proxy, _encrypts, _keeps_secrets):
        for finding in examination(address, server):
            yield finding
            if finding.level is Level.BAD:
                return
    yield from _asked(session, address)


def _asked(session: Session, address: Address) -> Iterator[Finding]:
    from faas.client import Client

    with Client(session.server, context=session.context, timeout_s=10) as client:
        examinations: tuple[Callable[[Client], Iterator[Finding]], ...] = (
            _answers,
            _has_workers,
            _keeps_up,
        )
        yield from _health(address)
        for examination in examinations:
            try:
                for finding in examination(client):
                    yield finding
                    if finding.level is Level.BAD:
                        return
            except errors.FaasError as error:
                yield bad(str(error), explain(error).removeprefix(str(error)).strip())
                return


def _machine(address: Address, data_dir: Path | None) -> Iterator[Finding]:
    """What installed packages find on this machine, where the platform is on it."""
    if not address.local:
        return
    for entry_point in entry_points(group=EXAMINATIONS_GROUP):
        try:
            examination = entry_point.load()
        except ModuleNotFoundError:  # the servers are not installed here
            continue
        yield from examination(address, data_dir)


def _resolves(address: Address, _server: contexts.Server) -> Iterator[Finding]:
    if address.target.startswith("unix:"):
        return
    host, _, port = address.target.rpartition(":")
    try:
        socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
    except OSError as error:
        yield bad(
            f"The name {host} is not known: {error.strerror}",
            "Is it spelled so? Does this machine's DNS know it?",
        )


def _listens(address: Address, _server: contexts.Server) -> Iterator[Finding]:
    try:
        with _connect(address):
            yield good(f"something listens at {address.target}")
    except TimeoutError:
        yield bad(
            f"{address.target} does not answer within {CONNECT_S:g} s",
            "A firewall drops what is sent there, or the machine is off.",
        )
    except OSError as error:
        cure = "`faas up` starts a platform on this machine; `faas status` shows one that runs."
        if not address.local:
            cure = "Is it up, and is this its port? On its machine: `faas status`."
        yield bad(f"Nothing listens at {address.target}: {error.strerror}", cure)


def _proxy(address: Address, _server: contexts.Server) -> Iterator[Finding]:
    named = [name for name in _PROXIES if os.environ.get(name)]
    if named and not address.local:
        yield warning(
            f"Calls go through the proxy of {named[0]}",
            f"If it does not pass HTTP/2 on: NO_PROXY={address.target.rpartition(':')[0]}",
        )


def _encrypts(address: Address, server: contexts.Server) -> Iterator[Finding]:
    if address.target.startswith("unix:"):
        return
    host = address.target.rpartition(":")[0].strip("[]")
    try:
        context = ssl.create_default_context(cafile=server.certificate)
    except OSError as error:
        yield bad(
            f"The certificate {server.certificate} cannot be used: {error.strerror or error}",
            "Name another: faas context set NAME URL --certificate FILE",
        )
        return
    try:
        with _connect(address) as raw, context.wrap_socket(raw, server_hostname=host):
            speaks = True
    except ssl.SSLCertVerificationError as error:
        if address.secure:
            yield bad(
                f"The server's certificate is not trusted: {error.verify_message}",
                "Is it of a private authority? faas context set NAME URL --certificate FILE",
            )
            return
        speaks = True
    except OSError:
        speaks = False
    if speaks != address.secure:
        other = f"{'http' if address.secure else 'https'}://{address.target}"
        yield bad(
            f"The server speaks {'TLS' if speaks else 'no TLS'} there", f"Say --server {other}"
        )


def _keeps_secrets(address: Address, server: contexts.Server) -> Iterator[Finding]:
    if server.token and not address.secure and not address.local:
        yield warning(
            "The credential travels unencrypted",
            f"Put TLS before the platform, and say --server https://{address.target}",
        )


def _health(address: Address) -> Iterator[Finding]:
    """What the parts say of themselves."""
    if address.target.startswith("unix:"):
        return
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({} if address.local else None))
    try:
        with opener.open(f"{address}/health", timeout=CONNECT_S) as answer:
            body, sent = answer.read(1 << 20), answer.headers.get("Date")
    except urllib.error.HTTPError as error:
        body, sent = error.read(1 << 20), error.headers.get("Date")
    except (OSError, ValueError, http.client.HTTPException):
        return  # what follows says more
    yield from _clock(sent)
    for part in _parts(body):
        if part.get("status") != "SERVING":
            detail = f": {part['detail']}" if part.get("detail") else ""
            yield warning(
                f"{part.get('name')} does not serve{detail}",
                "`faas status` shows its process, and its log says why.",
            )


def _parts(body: bytes) -> list[dict[str, Any]]:
    try:
        parts = json.loads(body)["parts"]
    except (ValueError, KeyError, TypeError):
        return []
    return [part for part in parts if isinstance(part, dict)]


def _clock(sent: str | None) -> Iterator[Finding]:
    there = email.utils.parsedate_to_datetime(sent).timestamp() if sent else time.time()
    if abs(there - time.time()) > CLOCK_S:
        yield warning(
            f"The clocks differ by {abs(there - time.time()):.0f} s",
            "Let both machines set theirs by NTP: times of records would mislead.",
        )


def _answers(client: "Client") -> Iterator[Finding]:
    try:
        next(client.functions(page_size=1), None)
    except errors.Unauthenticated as error:
        yield bad(
            f"The server wants another credential: {error}",
            "Give it in FAAS_TOKEN, or: faas context set NAME URL --token-stdin",
        )
    except (errors.NotSupported, errors.ServerError):
        yield bad(
            f"What listens at {client.address.target} is no faas-mesh, or an older one",
            "Is the port right? `faas status` shows where a platform of this machine listens.",
        )
    else:
        yield good("it is a faas-mesh, and answers")


def _has_workers(client: "Client") -> Iterator[Finding]:
    workers = list(client.workers())
    ready = [worker for worker in workers if worker.state == Worker.READY]
    for worker in workers:
        name = f"{worker.id} on {worker.host}"
        if worker.state == Worker.LOST:
            yield warning(
                f"{name} is lost", "Look at its log; what it ran was given to others already."
            )
        elif worker.state in (Worker.DRAINING, Worker.DRAINED):
            yield warning(f"{name} takes no work", f"faas workers resume {worker.id}")
        if worker.version != __version__:
            yield warning(
                f"{name} is of version {worker.version}, this client of {__version__}",
                "Bring both to one version.",
            )
    if not ready:
        yield bad(
            "No worker takes work: what is invoked waits",
            "Start one, or resume one: `faas workers ls`.",
        )
        return
    yield good(f"{len(ready)} worker{'s' if len(ready) > 1 else ''} take work")
    runtimes = {runtime.name for worker in ready for runtime in worker.runtimes}
    needed = {function.record.runtime for function in client.functions()}
    for missing in sorted(needed - runtimes):
        yield warning(
            f"There are functions in {missing}, and no worker runs it",
            "Build its image (make images) or install its toolchain where a worker is.",
        )
    if any(r.image == "process" for worker in ready for r in worker.runtimes):
        yield warning(
            "Functions run as processes, which isolates nothing",
            "Give the worker's machine a Docker engine, for any code but your own.",
        )


def _keeps_up(client: "Client") -> Iterator[Finding]:
    before = datetime.now(UTC) - STUCK
    waiting = next(client.invocations(status="PENDING", created_before=before, page_size=1), None)
    if waiting is None:
        yield good("nothing waits for long")
    elif waiting.record.status == Invocation.PENDING:
        yield warning(
            f"{waiting.id} of {waiting.function_name} has waited for more than"
            f" {STUCK.total_seconds() / 60:.0f} minutes",
            "Are there workers enough? faas workers ls; faas invocations ls --status pending",
        )


def _connect(address: Address) -> socket.socket:
    if address.target.startswith("unix:"):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address.target.removeprefix("unix:"))
        return connection
    host, _, port = address.target.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S)
