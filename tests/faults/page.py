"""docs/reliability.md: what was measured is put between its marks."""

import platform
from pathlib import Path

PAGE = Path(__file__).resolve().parents[2] / "docs" / "reliability.md"


def put(section: str, text: str) -> None:
    """Replace what is between a section's marks."""
    begin, end = f"<!-- {section}: begin -->", f"<!-- {section}: end -->"
    before, _, rest = PAGE.read_text().partition(begin)
    _, found, after = rest.partition(end)
    if not found:
        raise ValueError(f"{PAGE} has no marks of {section}")
    PAGE.write_text(f"{before}{begin}\n{text}\n{end}{after}")


def machine() -> str:
    """What it was measured on."""
    return f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
