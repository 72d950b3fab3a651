"""The one history of the database's schema, for the tables of all services."""

from services.migrations.runner import migrate

__all__ = ["migrate"]
