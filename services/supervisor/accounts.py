"""Whom parts run as."""

import os
import pwd
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Account:
    """A user of this machine, with that user's own group and no other."""

    name: str
    uid: int
    gid: int

    def reaches(self, path: Path) -> bool:
        """Whether this account may enter the directory, or run the file, at `path`."""
        return not subprocess.run(["test", "-x", path], check=False, **run_as(self)).returncode


def unprivileged() -> Account | None:
    """Whom PostgreSQL runs as where we are root, which it refuses; None: as we are."""
    if os.geteuid() != 0:
        return None
    accounts = {entry.pw_name: entry for entry in pwd.getpwall()}
    entry = accounts.get("postgres") or accounts["nobody"]
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def run_as(account: Account | None) -> dict[str, Any]:
    """Arguments for `subprocess`, to run something as `account`; None: as we are."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}
