"""`faas migrate`, for supervisors: `python -m services.migrations`."""

import typer

from services.migrations.commands import migrate

if __name__ == "__main__":
    typer.run(migrate)
