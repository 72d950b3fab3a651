"""`faas up`, for the background: `python -m services.supervisor`."""

import typer

from services.supervisor.commands import up

if __name__ == "__main__":
    typer.run(up)
