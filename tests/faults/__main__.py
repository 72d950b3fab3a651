"""`make faults`: every row for several rounds, a line for each, and docs/reliability.md."""

import argparse
import asyncio
import random
import shutil
import sys
import tempfile
import time
import traceback
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from services.telemetry import configure_logging
from tests.faults.many import FEATS, Feat
from tests.faults.matrix import FAULTS, Fault
from tests.faults.page import machine, put
from tests.faults.rounds import LONG, SHORT, Pace, Round, play
from tests.faults.stack import QUICK, Stack


@dataclass
class Row:
    """What became of one fault."""

    fault: Fault
    rounds: list[Round] = field(default_factory=list)
    broken: str = ""
    """Which invariant did not hold; empty: all did."""

    def cells(self) -> list[str]:
        """As a line of the table."""
        if lacking := self.fault.lacking():
            return [self.fault.name, "0", "", f"not played: it needs {lacking}", "", "", ""]
        worst = max((round_.recovery_s for round_ in self.rounds), default=0.0)
        return [
            self.fault.name,
            str(len(self.rounds)),
            str(sum(round_.kept.invocations for round_ in self.rounds)),
            self.broken or "hold",
            f"{worst:.1f} (≤ {self.fault.bound_s:g})",
            str(sum(round_.kept.reruns for round_ in self.rounds)),
            str(sum(len(round_.kept.unexpected) for round_ in self.rounds)),
        ]


HEAD = [
    "fault",
    "rounds",
    "invocations",
    "L T A E C",
    "recovery, worst (s)",
    "re-runs",
    "not completed",
]


async def play_all(faults: list[Fault], rounds: int, seed: int, pace: Pace, quick: bool) -> bool:
    """Play and print; whether everything held."""
    rows = []
    stack = None
    for fault in faults:
        row = Row(fault)
        rows.append(row)
        for number in range(0 if fault.lacking() else rounds):
            if stack is None:
                stack = Stack.make(settings(quick))
                await stack.up()
            try:
                await stack.heal()
                row.rounds.append(await play(stack, fault, seed + number, pace))
                if row.rounds[-1].recovery_s > fault.bound_s:
                    row.broken = row.broken or "R broken"
            except (AssertionError, TimeoutError, ExceptionGroup) as error:
                row.broken = f"broken (seed {seed + number}): {told(error)}"
                await stack.down()
                stack = None
                break
        print(" | ".join(row.cells()), flush=True)
    if stack is not None:
        await stack.down()
    return all(not row.broken for row in rows) and write(rows, rounds, seed, quick)


async def play_feats(feats: list[Feat], quick: bool) -> bool:
    """Play what shows in numbers, each on a stack of its own; whether everything held."""
    rows = [["what", "invocations", "invariants", "took (s)"], ["---"] * 4]
    for feat in feats:
        stack, directory = Stack.make(settings(quick)), Path(tempfile.mkdtemp(prefix="faas-feat-"))
        began, outcome = time.monotonic(), "hold"
        try:
            await stack.up()
            await feat.play(stack, directory, feat.count)
        except (AssertionError, TimeoutError, ExceptionGroup) as error:
            outcome = f"broken: {told(error)}"
        finally:
            took = time.monotonic() - began
            await stack.down()
            shutil.rmtree(directory)
        rows.append([feat.name, f"{feat.count:,}", outcome, f"{took:.0f}"])
        print(" | ".join(rows[-1]), flush=True)
    held = all(row[2] == "hold" for row in rows[2:])
    if held and len(feats) == len(FEATS):
        lines = [f"| {' | '.join(cells)} |" for cells in rows]
        put("feats", "\n".join([f"{datetime.now(UTC).date()}, on {machine()}:", "", *lines]))
    return held


def settings(quick: bool) -> dict[str, dict[str, Any]]:
    """Of the parts: short leases, or the deployment's own."""
    return QUICK if quick else {"worker": {"concurrency": 8}}


def told(error: BaseException) -> str:
    """What went wrong, in a line; all of it to standard error."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    traceback.print_exception(error)
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0][:160]


def write(rows: list[Row], rounds: int, seed: int, quick: bool) -> bool:
    """Write the report, of a whole matrix that held."""
    if len(rows) < len(FAULTS):
        return True
    lines = [f"| {' | '.join(cells)} |" for cells in (HEAD, ["---"] * len(HEAD))]
    lines += [f"| {' | '.join(row.cells())} |" for row in rows]
    said = (
        f"{datetime.now(UTC).date()}, seed {seed}, {rounds} rounds a row,"
        f" leases of {'6' if quick else '30'} s, on {machine()}:"
    )
    put("matrix", "\n".join([said, "", *lines]))
    return True


def main() -> int:
    """Read the arguments, play."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seed", type=int, default=random.randrange(1000))
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--part", choices=("matrix", "numbers"), help="not the other")
    parser.add_argument("--long", action="store_true", help="as long as outages really are")
    parser.add_argument("--real-leases", action="store_true", help="the deployment's own settings")
    arguments = parser.parse_args()
    # Of the workers that run in this process.
    configure_logging("error", "text", part="faults")
    faults = [fault for fault in FAULTS if arguments.only in fault.name]
    faults = [] if arguments.part == "numbers" else faults
    feats = [feat for feat in FEATS if arguments.only in feat.name]
    feats = [] if arguments.part == "matrix" else feats
    pace, quick = LONG if arguments.long else SHORT, not arguments.real_leases
    held = asyncio.run(play_all(faults, arguments.rounds, arguments.seed, pace, quick))
    return 0 if asyncio.run(play_feats(feats, quick)) and held else 1


if __name__ == "__main__":
    sys.exit(main())
