"""Brings a stack up, keeps it up, and takes it down."""

import asyncio
import contextlib
import http.client
import os
import shutil
import subprocess
import urllib.request
from collections.abc import Mapping
from pathlib import Path

from faas import __version__
from services.supervisor import ports, processes, runtimes
from services.supervisor.docker import Engine
from services.supervisor.errors import Failed, Refused
from services.supervisor.keeper import Keeper
from services.supervisor.layout import Layout
from services.supervisor.logs import rotate, tail
from services.supervisor.mesh import Mesh, Options, environment, module
from services.supervisor.parts import Part
from services.supervisor.request import Request
from services.supervisor.screen import Screen
from services.supervisor.state import StackStatus, take_lock, unlocked
from services.supervisor.stopping import Stopping
from services.supervisor.watchdog import Ward, Watchdog, end

START_TIMEOUT_S = 180.0
# A part that has died so often before it ever served will not serve.
HOPELESS_DEATHS = 5
# What the watchdog needs to clear away a supervisor that was killed.
CLEARING_S = 15.0
TEND_INTERVAL_S = 2.0
_POLL_S = 0.1


async def up(request: Request, screen: Screen) -> None:
    """Run a stack until SIGTERM or SIGINT. Raises Refused or Failed."""
    host = ports.checked_host(request.host, insecure=request.insecure)
    layout = Layout.of(request.data_dir)
    layout.make_data_dir()
    lock = await _locked(layout, screen)
    screen.log_to(layout.log("supervisor"))
    run_dir = layout.make_run_dir()
    try:
        stopping = Stopping(screen)
        _end_leftovers(layout)
        port = ports.free_port(host, request.port)
        with ports.reserved(host, port):
            engine = await stopping.before(runtimes.choose(request.runtime, screen))
            if not stopping.asked.is_set():
                options = Options(host, port, engine, request.workers, layout.stack())
                await _Stack(layout, options, screen, lock).run(stopping)
    finally:
        shutil.rmtree(layout.run_dir, ignore_errors=True)
        os.close(run_dir)
        os.close(lock)


class _Stack:
    """One stack, from its first process to its last."""

    def __init__(self, layout: Layout, options: Options, screen: Screen, lock: int) -> None:
        self._layout = layout
        self._options = options
        self._screen = screen
        self._mesh = Mesh(layout, options)
        self._watchdog = Watchdog(
            options.stack, engine=options.engine, run_dir=layout.run_dir, lock=lock
        )
        self._keeper = Keeper(layout, self._watchdog, changed=self._write_state, tell=screen.say)
        self._status = StackStatus(
            pid=os.getpid(),
            birth=processes.birth(os.getpid()),
            url=options.url,
            grpc_address=options.grpc_address,
            runtime=options.runtime,
            engine=str(options.engine.socket) if options.engine else "",
            stack=options.stack,
            data_dir=str(layout.data_dir),
            run_dir=str(layout.run_dir),
            version=__version__,
        )

    async def run(self, stopping: Stopping) -> None:
        """Start everything, keep it, and end it when asked. Raises Refused or Failed."""
        self._watchdog.ensure()
        self._write_state()
        tending = asyncio.create_task(self._tend(), name="tend")
        try:
            await stopping.before(self._start())
            await stopping.before(self._keeper.broken())
        finally:
            tending.cancel()
            await self._stop(stopping)

    async def _start(self) -> None:
        mesh, screen = self._mesh, self._screen
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                with screen.step("Preparing PostgreSQL and Valkey"):
                    await asyncio.to_thread(mesh.postgres.prepare)
                    mesh.valkey.prepare()
                with screen.step("Starting PostgreSQL and Valkey"):
                    await self._serve(mesh.stores())
                with screen.step("Bringing the database up to date"):
                    await asyncio.to_thread(mesh.postgres.create_database)
                    await asyncio.gather(self._migrate(), self._render())
                with screen.step("Starting the services, Envoy and the workers"):
                    await self._serve(mesh.services())
                    await self._healthy()
        except TimeoutError:
            raise Failed(f"It does not serve after {START_TIMEOUT_S:.0f} s.") from None
        self._welcome()
        self._status.ready = True
        self._write_state()

    async def _serve(self, parts: list[Part]) -> None:
        """Keep these parts running, from when all of them serve. Raises Failed."""
        self._keeper.keep(*parts)
        while not self._keeper.all_serve():
            if name := self._keeper.hopeless(HOPELESS_DEATHS):
                log = self._layout.log(name)
                raise Failed(f"{name} does not start. The end of {log}:\n{tail(log)}")
            await asyncio.sleep(_POLL_S)

    async def _migrate(self) -> None:
        """Bring the database to this version's schema. Raises Failed."""
        settings = environment("migrations", {"database_url": self._mesh.postgres.url})
        await _run_module("services.migrations", settings)

    async def _render(self) -> None:
        """Write Envoy's configuration. Raises Failed."""
        settings = environment("gateway", self._mesh.gateway_settings())
        self._mesh.envoy_file.write_text(await _run_module("services.gateway.render", settings))

    async def _healthy(self) -> None:
        """Wait until the whole serves, asked as callers ask."""
        url = f"{self._options.url}/health"
        while not await asyncio.to_thread(_is_healthy, url):  # noqa: ASYNC110 - asked by HTTP
            await asyncio.sleep(_POLL_S)

    async def _tend(self) -> None:
        """What there is to do from time to time."""
        while True:
            await asyncio.sleep(TEND_INTERVAL_S)
            with contextlib.suppress(OSError):  # no more processes, a full disk
                self._watchdog.ensure()
                rotate(self._layout.logs)

    async def _stop(self, stopping: Stopping) -> None:
        self._status.ready = False
        hurrying = asyncio.create_task(stopping.hurried.wait(), name="hurry on signals")
        hurrying.add_done_callback(lambda _: self._keeper.hurry())
        with self._screen.step("Ending all parts"):
            await self._keeper.stop()
        hurrying.cancel()
        self._layout.state.unlink(missing_ok=True)
        await asyncio.to_thread(self._watchdog.close)

    def _write_state(self) -> None:
        self._status.parts = self._keeper.statuses
        with contextlib.suppress(OSError):  # a full disk: what runs, runs on
            self._status.write(self._layout.state)

    def _welcome(self) -> None:
        options, screen = self._options, self._screen
        workers = f"{options.workers} worker" + ("s" if options.workers != 1 else "")
        screen.say(f"faas is up: {options.url} (HTTP and gRPC)", style="bold green")
        screen.say(f"{workers}, {options.runtime} runtime, data in {self._layout.data_dir}")
        if not options.is_closed:
            screen.warn(
                "Whoever reaches this port can run code on this machine: there is no access"
                " control yet. Host names that callers use must be listed in"
                " FAAS_GATEWAY_ALLOWED_HOSTS."
            )
        # Elsewhere the command has to be told where it is.
        export = "" if options.port == _USUAL_PORT else f"export FAAS_SERVER={options.url}\n  "
        screen.say(_TRY.format(export=export))


_USUAL_PORT = 8080
_TRY = """The web UI is there too. Try it:
  {export}faas init hello
  faas deploy hello
  faas invoke hello '{{"name": "Ada"}}'"""


async def _locked(layout: Layout, screen: Screen) -> int:
    """The data directory's lock. Raises Refused."""
    lock = take_lock(layout)
    if lock is not None:
        return lock
    found = StackStatus.read(layout.state)
    if found is None or not found.is_alive():
        with screen.step("Waiting until what ran here before is cleared away"):
            await asyncio.to_thread(unlocked, layout, CLEARING_S)
        if (lock := take_lock(layout)) is not None:
            return lock
        raise Refused(f"The data directory {layout.data_dir} is taken by another `faas up`.")
    raise Refused(
        f"The data directory {layout.data_dir} is taken by the stack at {found.url}"
        f" (process {found.pid}): end it with `faas down --data-dir {layout.data_dir}`,"
        " or choose another with --data-dir."
    )


def _end_leftovers(layout: Layout) -> None:
    """End what the last run left, if it and its watchdog were killed together."""
    found = StackStatus.read(layout.state)
    if found is None:
        return
    wards = [
        Ward(part.pid, part.birth, part.stop_signal, part.keeps_data)
        for part in found.parts
        if part.is_alive()
    ]
    if wards:
        end(wards, found.stack, Engine(Path(found.engine)) if found.engine else None)


async def _run_module(name: str, variables: Mapping[str, str]) -> str:
    """Run a module of ours to its end; what it printed. Raises Failed."""
    process = await asyncio.create_subprocess_exec(
        *module(name),
        env=dict(variables),
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        printed, errors = await process.communicate()
    except asyncio.CancelledError:
        process.kill()
        await process.wait()
        raise
    if process.returncode:
        last = "\n".join(errors.decode(errors="replace").splitlines()[-10:])
        raise Failed(f"{name} {processes.describe(process.returncode)}:\n{last}")
    return printed.decode()


def _is_healthy(url: str) -> bool:
    """Whether `/health` says that the whole serves."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=10) as answer:
            return bool(answer.status == 200)
    except (OSError, http.client.HTTPException):
        return False
