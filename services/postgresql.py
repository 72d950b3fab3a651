"""PostgreSQL as its driver meets it when it is away, and what that leaves open."""

import psycopg
from psycopg_pool import PoolTimeout

UNAVAILABLE = (psycopg.OperationalError, psycopg.InterfaceError, PoolTimeout)
"""What is raised when PostgreSQL does not answer."""


def is_unsure(error: BaseException | None) -> bool:
    """Whether it leaves open if what was asked for was done.

    It does where a statement that commits may have been sent, not where there was no
    connection to send it on.
    """
    return isinstance(error, UNAVAILABLE) and not isinstance(error, PoolTimeout)
