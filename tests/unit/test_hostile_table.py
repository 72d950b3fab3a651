"""The table of hostile functions has no cell that is empty without a reason."""

import pytest

from tests.hostile.cases import FRAMES, LIMITS, OUTPUT, TIME
from tests.hostile.reach import DENIED
from tests.hostile.table import LANGUAGES, Cannot, Table


@pytest.mark.parametrize("table", [TIME, OUTPUT, FRAMES, LIMITS])
def test_every_case_is_there_in_every_language_or_says_why_not(table: Table) -> None:
    for name, case in table.rows.items():
        assert set(case.cells) == set(LANGUAGES), name
        for language, cell in case.cells.items():
            text = cell.reason if isinstance(cell, Cannot) else cell
            assert text.strip(), (name, language)
            if not isinstance(cell, Cannot):
                assert case.end_in(language)


def test_every_attempt_is_answered_in_every_language_or_says_why_not() -> None:
    for attempt, answer in DENIED.items():
        if not isinstance(answer, str):
            assert set(answer) == set(LANGUAGES), attempt
