"""Whether PostgreSQL keeps what it has committed: looked at once, and said loudly."""

import asyncio

import structlog

from services.invocations.database import UNAVAILABLE, Database

TRY_AGAIN_S = 1.0

_SETTINGS = """
SELECT current_setting('fsync') AS fsync, current_setting('synchronous_commit') AS commit,
  current_setting('synchronous_standby_names') AS standbys,
  (SELECT count(*) FROM pg_stat_replication) AS replicas"""

log = structlog.get_logger()


async def warnings(database: Database) -> list[str]:
    """Why what is accepted could be lost; nothing where it cannot."""
    (row,) = await database.fetch(_SETTINGS)
    found = []
    if row["fsync"] == "off":
        found.append("fsync is off: a crash of PostgreSQL's machine loses what was accepted")
    if row["commit"] == "off":
        found.append("synchronous_commit is off: a crash of PostgreSQL loses what was accepted")
    if row["replicas"] and not row["standbys"]:
        found.append(
            "PostgreSQL has a standby, and none that is synchronous: a fail-over loses what was"
            " accepted last; set synchronous_standby_names"
        )
    return found


class Durability:
    """Looks once PostgreSQL answers, and says what is wrong."""

    def __init__(self, database: Database) -> None:
        """Look at `database`."""
        self._database = database

    async def run(self) -> None:
        """Look once."""
        while True:
            try:
                found = await warnings(self._database)
                break
            except UNAVAILABLE:
                await asyncio.sleep(TRY_AGAIN_S)
        for text in found:
            log.error("the promise that nothing accepted is lost does not hold", reason=text)
