"""Keeps parts running: starts them in order, again when they die, and ends them in order."""

import asyncio
import contextlib
import ctypes
import itertools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from services.supervisor import processes
from services.supervisor.accounts import run_as
from services.supervisor.layout import Layout
from services.supervisor.parts import Part
from services.supervisor.state import PartState, PartStatus
from services.supervisor.watchdog import Ward, Watchdog

EXIT_START_AGAIN = 75
"""EX_TEMPFAIL, said by a worker whose boot is lost: start me again, under a new one."""

FIRST_BACKOFF_S = 0.2
MAX_BACKOFF_S = 10.0
# A part that has run for so long has recovered: its next death is a first one.
STABLE_S = 30.0

_PROBE_INTERVAL_S = 0.05
_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None) if sys.platform == "linux" else None


@dataclass
class _Kept:
    """A part, and what is being done about it."""

    part: Part
    status: PartStatus
    serving: asyncio.Event = field(default_factory=asyncio.Event)
    """It has served once."""
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    deaths: int = 0
    """In a row."""
    task: "asyncio.Task[None] | None" = None


class Keeper:
    """All parts of one stack."""

    def __init__(
        self,
        layout: Layout,
        watchdog: Watchdog,
        *,
        changed: Callable[[], None],
        tell: Callable[[str], None],
    ) -> None:
        """Call `changed` when a status did, and `tell` people of deaths."""
        self._layout = layout
        self._watchdog = watchdog
        self._changed = changed
        self._tell = tell
        self._kept: dict[str, _Kept] = {}
        self._hurry = asyncio.Event()
        self._broken: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def statuses(self) -> list[PartStatus]:
        """All parts, as they are now."""
        return [kept.status for kept in self._kept.values()]

    def keep(self, *parts: Part) -> None:
        """Run these parts, from now on."""
        for part in parts:
            status = PartStatus(
                part.name,
                log=str(self._layout.log(part.name)),
                stop_signal=part.stop_signal,
                keeps_data=part.keeps_data,
            )
            self._kept[part.name] = _Kept(part, status)
        for part in parts:
            kept = self._kept[part.name]
            kept.task = asyncio.create_task(self._run(kept), name=f"keep {part.name}")
            kept.task.add_done_callback(self._look)

    def all_serve(self) -> bool:
        """Whether every part has served."""
        return all(kept.serving.is_set() for kept in self._kept.values())

    def hopeless(self, deaths: int) -> str | None:
        """A part that has died so often in a row without ever having served."""
        for name, kept in self._kept.items():
            if kept.deaths >= deaths and not kept.serving.is_set():
                return name
        return None

    async def stop(self) -> None:
        """End all parts, in order."""
        ranks = itertools.groupby(
            sorted(self._kept.values(), key=_rank),
            key=_rank,
        )
        for _, together in ranks:
            tasks = []
            for kept in together:
                kept.stopping.set()
                assert kept.task is not None
                tasks.append(kept.task)
            await asyncio.wait(tasks)

    async def broken(self) -> None:
        """Wait until a part is kept no longer, by a mistake of ours; raises what it was."""
        await self._broken

    def hurry(self) -> None:
        """Let nothing that is being ended finish what it does."""
        self._hurry.set()

    async def _run(self, kept: _Kept) -> None:
        for name in kept.part.after:
            await _first(kept.stopping.wait(), self._kept[name].serving.wait())
        while not kept.stopping.is_set():
            began = time.monotonic()
            try:
                process = await self._start(kept)
            except OSError as error:  # no more processes, a full disk
                code, how = 1, f"cannot be started: {error}"
            else:
                code = await self._attend(kept, process)
                how = processes.describe(code)
                self._ended(kept, process)
            if kept.stopping.is_set():
                break
            kept.deaths = 1 if time.monotonic() - began > STABLE_S else kept.deaths + 1
            kept.status.restarts += 1
            pause = 0.0 if code == EXIT_START_AGAIN else backoff_s(kept.deaths)
            self._tell(f"{kept.part.name} {how}; starting it again in {pause:.1f} s")
            self._set(kept, PartState.WAITING)
            await _first(kept.stopping.wait(), asyncio.sleep(pause))
        self._set(kept, PartState.STOPPED)

    async def _start(self, kept: _Kept) -> asyncio.subprocess.Process:
        part = kept.part
        with (
            self._layout.log(part.name).open("ab") as log,
            self._layout.log(part.stdout or part.name).open("ab") as output,
        ):
            process = await asyncio.create_subprocess_exec(
                *part.command,
                env=dict(part.environment),
                cwd=part.directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=log,
                start_new_session=True,
                preexec_fn=_dies_with_parent(part.stop_signal),
                **run_as(part.account),
            )
        born = processes.birth(process.pid)
        self._watchdog.ensure()
        self._watchdog.add(Ward(process.pid, born, part.stop_signal, part.keeps_data))
        kept.status.pid, kept.status.birth = process.pid, born
        self._set(kept, PartState.STARTING)
        return process

    async def _attend(self, kept: _Kept, process: asyncio.subprocess.Process) -> int:
        """Wait for its end, or bring it about; its return code."""
        probing = asyncio.create_task(self._probe(kept), name=f"probe {kept.part.name}")
        try:
            await _first(process.wait(), kept.stopping.wait())
        finally:
            probing.cancel()
            await asyncio.wait({probing})
        if process.returncode is None:
            processes.send(process.pid, kept.part.stop_signal)
            await _first(
                process.wait(), self._hurry.wait(), asyncio.sleep(kept.part.stop_timeout_s)
            )
        if process.returncode is None and kept.part.keeps_data:
            await _first(process.wait(), asyncio.sleep(kept.part.stop_timeout_s))
        if process.returncode is None:
            processes.kill_tree(process.pid)
        return await process.wait()

    async def _probe(self, kept: _Kept) -> None:
        while not await asyncio.to_thread(kept.part.ready):  # noqa: ASYNC110 - it cannot tell
            await asyncio.sleep(_PROBE_INTERVAL_S)
        kept.serving.set()
        self._set(kept, PartState.SERVING)

    def _look(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) and not self._broken.done():
            self._broken.set_exception(error)

    def _ended(self, kept: _Kept, process: asyncio.subprocess.Process) -> None:
        # Its number is its group's: what it left in it goes with it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, signal.SIGKILL)
        self._watchdog.remove(process.pid)
        kept.status.pid, kept.status.birth = 0, ""

    def _set(self, kept: _Kept, state: PartState) -> None:
        kept.status.state = state
        self._changed()


def backoff_s(deaths: int) -> float:
    """How long to wait after so many deaths in a row."""
    return min(MAX_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(deaths - 1, 16))


def _rank(kept: _Kept) -> int:
    return kept.part.stops


def _dies_with_parent(number: signal.Signals) -> Callable[[], None]:
    """Have the kernel send `number` when the supervisor dies: the watchdog may be dead too."""
    parent = os.getpid()

    def before_exec() -> None:
        if _libc is not None:
            _libc.prctl(_PR_SET_PDEATHSIG, int(number), 0, 0, 0)
            if os.getppid() != parent:
                os._exit(1)

    return before_exec


async def _first(*waits: Coroutine[Any, Any, Any]) -> None:
    """Wait until one of these is over."""
    tasks = [asyncio.ensure_future(wait) for wait in waits]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
