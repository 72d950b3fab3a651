"""`faas dev`: a function on this machine, run again whenever a file is saved."""

import json
import re
import sys
import time
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Annotated, Any

import typer

from faas.cli import manifest
from faas.cli.failures import ExitCode, Failed, say
from faas.cli.options import pairs
from faas.cli.output import write_json
from faas.cli.payloads import MAX_BYTES, read_payload
from faas.cli.shim import Function, Ran
from faas.json_values import NotJson, loads
from faas.sources import RUNTIMES, files_of, folder_runtime

LOOK_S = 0.3
# A file that has not changed for so long is written to its end.
SETTLED_S = 0.1

Snapshot = list[tuple[str, int, int]]


def dev(
    path: Annotated[Path, typer.Argument(help="File or folder, or a faas.toml.")] = Path(),
    *,
    payload: Annotated[
        str | None,
        typer.Option("--payload", "-p", help="JSON, @FILE, or -.", show_default="null"),
    ] = None,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="KEY=VALUE, again.")] = None,
    handler: Annotated[
        str, typer.Option(help="module.callable, or a module.", show_default="told from the code")
    ] = "",
    once: Annotated[bool, typer.Option("--once", help="Run once, and end.")] = False,
    port: Annotated[
        int | None,
        typer.Option(
            min=0,
            max=65535,
            help="Answer POST requests on this port of this machine; 0: any free one.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Run a function here, without a server, by the contract that it has there.

    It runs again whenever a file is saved; with --port, once for each request. It is a
    process of yours: no limits but the time-out, no isolation.
    """
    function = _function(path, handler, pairs("--env", env))
    if port is not None:
        _serve(function, port)
        return
    data = read_payload(payload)
    while True:
        seen = _snapshot(function.path)
        failed = _run(function, data)
        if once:
            raise typer.Exit(ExitCode.FUNCTION_FAILED if failed else ExitCode.DONE)
        say("Waiting for a file to be saved; Ctrl-C ends.")
        _wait_until_saved(function.path, seen)
        function = _function(path, handler, pairs("--env", env))


def _function(path: Path, handler: str, env: dict[str, str]) -> Function:
    found = manifest.find(path)
    if not found.code.exists():
        raise Failed(f"{found.code} is not there.")
    runtime = found.runtime or (
        folder_runtime(found.code) if found.code.is_dir() else RUNTIMES.get(found.code.suffix, "")
    )
    if not runtime:
        raise Failed(f"{found.code} is no source: it must end in {', '.join(RUNTIMES)}.")
    settings = found.settings
    return Function(
        found.code,
        runtime,
        handler or str(settings.get("handler", "")),
        {k: str(v) for k, v in {**settings.get("env", {}), **env}.items()},
        _seconds(settings.get("timeout", 30)),
    )


def _run(function: Function, payload: Any) -> bool:
    began = time.monotonic()
    try:
        ran = function.run(payload)
    except Failed as failure:
        ran = Ran(failure=str(failure))
    sys.stderr.flush()
    took = f"{(time.monotonic() - began) * 1000:.0f} ms"
    if ran.failed:
        say(f"{ran.failure} ({took})")
    else:
        write_json(ran.result)
        sys.stdout.flush()
        say(f"({took})")
    return ran.failed


def _serve(function: Function, port: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            host = (self.headers.get("Host") or "").rpartition(":")[0]
            if self.headers.get("Origin") or host not in ("localhost", "127.0.0.1"):
                self._answer(403, {"message": "Pages of a browser may not call this."})
                return
            length = int(self.headers.get("Content-Length") or 0)
            if length > MAX_BYTES:
                self._answer(413, {"message": "The payload is too large."})
                return
            try:
                payload = loads(self.rfile.read(length) or b"null")
                ran = replace(function).run(payload)
            except (NotJson, Failed) as error:
                self._answer(400, {"message": str(error)})
                return
            if ran.failed:
                self._answer(500, {"message": ran.failure})
            else:
                self._answer(200, ran.result)

        def _answer(self, status: int, body: Any) -> None:
            data = json.dumps(body, ensure_ascii=False).encode() + b"\n"
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        say(f"POST a payload to http://127.0.0.1:{server.server_port}/ ; Ctrl-C ends.")
        server.serve_forever()


def _wait_until_saved(path: Path, seen: Snapshot) -> None:
    while (found := _snapshot(path)) == seen:
        time.sleep(LOOK_S)
    # To save a file is to empty it first, and then to write it.
    while found != seen:
        seen = found
        time.sleep(SETTLED_S)
        found = _snapshot(path)


def _snapshot(path: Path) -> Snapshot:
    """What tells that something was saved."""
    files = list(files_of(path)) if path.is_dir() else [(path, path.name)]
    found = []
    for file, name in files:
        try:
            status = file.stat()
        except OSError:  # it is being replaced
            continue
        found.append((name, status.st_mtime_ns, status.st_size))
    return found


def _seconds(timeout: Any) -> float:
    found = re.fullmatch(r"(\d+(?:\.\d+)?)s?", str(timeout))
    if found is None:
        raise Failed(f"timeout: {timeout!r} is no time: write it as '30s'.")
    return float(found[1])
