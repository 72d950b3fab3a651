"""`faas migrate`."""

from typing import Annotated

import typer


def migrate(
    database_url: Annotated[
        str,
        typer.Option(
            envvar="FAAS_MIGRATIONS_DATABASE_URL",
            help="PostgreSQL, as a libpq URL: postgresql://user:password@host/database.",
        ),
    ],
) -> None:
    """Bring a database to the newest schema; `faas up` does that by itself.

    Safe to run by several at once, and again: one does the work, the others find it done.
    """
    try:
        from services.migrations.runner import migrate as upgrade
    except ModuleNotFoundError as error:
        typer.secho(
            f"This needs the servers, and {error.name!r} is not installed:"
            " pip install 'faas-mesh[server]'.",
            fg=typer.colors.RED,
            err=True,
        )
        raise typer.Exit(1) from error
    upgrade(database_url)
