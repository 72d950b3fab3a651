"""The shape of the table of hostile functions, and how a cell becomes a function.

A case is a row: what the function does in each language, or why that language cannot,
and how it must end. All Go cells of a table are compiled as one package, because
compiling each would take longer than all the attacks together.
"""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import pytest

from faas.v1.invocation_pb2 import Invocation
from tests.conformance.functions import go

LANGUAGES = ("python", "node", "go")
VARIABLE = "HOSTILE_CASE"
COMPLETED = None
"""The code of what ends without a failure."""


@dataclass(frozen=True)
class Cannot:
    """Why a language has no such function."""

    reason: str


@dataclass(frozen=True)
class End:
    """How it must end."""

    code: Invocation.ErrorCode.ValueType | None
    exit_code: int = 0
    says: str = ""
    """In the error's message."""
    prints: str = ""
    """In a line of its log."""


Cell = str | Cannot


@dataclass(frozen=True)
class Case:
    """One row."""

    cells: Mapping[str, Cell]
    end: End | Mapping[str, End]
    timeout_s: float = 60
    handler: str | None = None
    memory_mb: int = 128
    keeps_sandbox: Collection[str] = ()
    """The languages in which it does its sandbox no harm, which serves its next call."""
    truncates: bool | None = False
    """What it printed was cut; None: that depends on how many stacks it died with."""
    alone: bool = False
    """Its Go cell is a package of its own."""

    def end_in(self, language: str) -> End:
        """How it must end in a language."""
        return self.end if isinstance(self.end, End) else self.end[language]


@dataclass
class Table:
    """Rows, by name."""

    rows: Mapping[str, Case]
    _numbers: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._numbers = {name: number for number, name in enumerate(self.rows)}

    def cells(self) -> list[object]:
        """Every cell that is there, as parameters `name` and `language`."""
        return [
            pytest.param(name, language, id=f"{name}-{language}")
            for name, case in self.rows.items()
            for language in LANGUAGES
            if isinstance(case.cells[language], str)
        ]

    def files(self, name: str, language: str) -> dict[str, str]:
        """What a cell's function consists of, its main file named `main`."""
        case = self.rows[name]
        cell = case.cells[language]
        assert isinstance(cell, str)
        if language == "go" and not case.alone and case.handler is None:
            return self._package
        return {{"python": "main.py", "node": "main.js", "go": "main.go"}[language]: cell}

    def env(self, name: str) -> dict[str, str]:
        """By which the package of all Go cells knows which it is to be."""
        return {VARIABLE: name}

    @property
    def _package(self) -> dict[str, str]:
        files, names = {}, []
        for name, case in self.rows.items():
            cell = case.cells["go"]
            if isinstance(cell, str) and not case.alone and case.handler is None:
                own = f"Handler{self._numbers[name]}"
                files[f"case{self._numbers[name]}.go"] = re.sub(r"\bHandler\b", own, cell)
                names.append(f'"{name}": {own}')
        choice = (
            "all := map[string]func(context.Context, json.RawMessage) (any, error){"
            + ", ".join(names)
            + f'}}\n\treturn all[os.Getenv("{VARIABLE}")](ctx, payload)'
        )
        return {**files, "main.go": go(choice, "os")}
