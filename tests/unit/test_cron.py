"""Cron lines in time zones, on the days when clocks change too."""

from datetime import UTC, datetime, timedelta
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.errors import InvalidField
from services.invocations.cron import Cron

NOW = datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC)


def moments(line: str, zone: str, start: str, count: int) -> list[str]:
    cron = Cron.checked(line, zone, NOW)
    after = islice(cron.after(datetime.fromisoformat(start)), count)
    return [f"{moment:%m-%d %H:%M}" for moment in after]


@pytest.mark.parametrize(
    ("line", "zone", "expected"),
    [
        ("*/20 * * * *", "UTC", ["03-04 05:20", "03-04 05:40", "03-04 06:00"]),
        ("0 9 * * MON-FRI", "", ["03-04 09:00", "03-05 09:00", "03-06 09:00"]),
        ("0 9 * * 1", "Europe/Berlin", ["03-09 08:00", "03-16 08:00", "03-23 08:00"]),
        ("0 0 L * *", "UTC", ["03-31 00:00", "04-30 00:00", "05-31 00:00"]),
        ("0 0 29 2 *", "UTC", ["02-29 00:00", "02-29 00:00", "02-29 00:00"]),
        (" @daily ", "UTC", ["03-05 00:00", "03-06 00:00", "03-07 00:00"]),
        ("@HOURLY", "Asia/Kolkata", ["03-04 05:30", "03-04 06:30", "03-04 07:30"]),
    ],
)
def test_moments(line: str, zone: str, expected: list[str]) -> None:
    assert moments(line, zone, NOW.isoformat(), 3) == expected


def test_clocks_put_forward_leave_nothing_out() -> None:
    # In Berlin 2026-03-29 has no 02:30: it fires right after, at 03:00, which is 01:00 UTC.
    found = moments("30 2 * * *", "Europe/Berlin", "2026-03-28T00:00:00Z", 3)
    assert found == ["03-28 01:30", "03-29 01:00", "03-30 00:30"]


def test_clocks_put_back_double_nothing() -> None:
    # On 2026-10-25 there are two 02:30; every half hour goes on through both.
    assert moments("30 2 * * *", "Europe/Berlin", "2026-10-24T12:00:00Z", 2) == [
        "10-25 00:30",
        "10-26 01:30",
    ]
    assert moments("*/30 * * * *", "Europe/Berlin", "2026-10-25T00:15:00Z", 4) == [
        "10-25 00:30",
        "10-25 01:00",
        "10-25 01:30",
        "10-25 02:00",
    ]


@pytest.mark.parametrize(
    ("line", "zone", "field"),
    [
        ("", "", "cron"),
        ("* * * *", "", "cron"),
        ("0 * * * * *", "", "cron"),
        ("60 * * * *", "", "cron"),
        ("*/0 * * * *", "", "cron"),
        ("a b c d e", "", "cron"),
        ("@reboot", "", "cron"),
        ("0 0 31 2 *", "", "cron"),
        ("0 0 31 4,6 *", "", "cron"),
        ("* * * * *", "Mars/Olympus", "time_zone"),
        ("* * * * *", "../etc/passwd", "time_zone"),
        ("* * * * *", "a\x00b", "time_zone"),
        ("* * * * *", "/etc/localtime", "time_zone"),
    ],
)
def test_what_is_none_is_refused_and_named(line: str, zone: str, field: str) -> None:
    with pytest.raises(InvalidField) as caught:
        Cron.checked(line, zone, NOW)
    assert [violation.field for violation in caught.value.violations] == [field]


@given(st.text(alphabet="0123456789*/,-L#W @JANMON", max_size=24))
def test_any_text_is_a_line_or_refused(line: str) -> None:
    try:
        cron = Cron.checked(line, "Europe/Berlin", NOW)
    except InvalidField:
        return
    first = cron.next(NOW)
    assert first is not None
    assert first > NOW


def test_missed_moments_are_the_last_ones() -> None:
    cron = Cron.checked("* * * * *", "Europe/Berlin", NOW)
    first = datetime(2025, 3, 4, 0, 0, tzinfo=UTC)
    missed = cron.between(first, NOW, 100)
    assert len(missed) == 100
    assert missed[-1] == NOW.replace(second=0)
    assert missed[0] == missed[-1] - timedelta(minutes=99)
    assert cron.between(missed[-2], NOW, 100) == missed[-2:]
    assert cron.between(missed[-1], missed[-1], 100) == missed[-1:]
    daily = Cron.checked("0 0 * * *", "UTC", NOW)
    midnight = NOW.replace(hour=0, minute=0, second=0)
    assert daily.between(midnight, NOW, 100) == [midnight]
