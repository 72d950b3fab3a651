"""Bring a database to the newest schema, once, however many processes try."""

from pathlib import Path

import sqlalchemy
from alembic import command
from alembic.config import Config
from sqlalchemy.engine import make_url

# Any number, as long as all replicas use the same one.
ADVISORY_LOCK = 0x6661_6173  # "faas"


def migrate(database_url: str, revision: str = "head") -> None:
    """Upgrade the database at `database_url` (libpq form) to `revision`.

    Safe to call from several processes at once: a session-level advisory lock lets
    one do the work, and the others find it done.
    """
    engine = sqlalchemy.create_engine(sqlalchemy_url(database_url), poolclass=sqlalchemy.NullPool)
    with engine.connect() as connection:
        lock = sqlalchemy.text("SELECT pg_advisory_lock(:key)")
        connection.execute(lock, {"key": ADVISORY_LOCK})
        # The lock belongs to the session, so it outlives this transaction.
        connection.commit()
        config = Config()
        config.set_main_option("script_location", str(Path(__file__).parent))
        config.attributes["connection"] = connection
        command.upgrade(config, revision)
    engine.dispose()


def sqlalchemy_url(database_url: str) -> sqlalchemy.URL:
    """A libpq URL (`postgresql://…`) with the driver that we use."""
    return make_url(database_url).set(drivername="postgresql+psycopg")
