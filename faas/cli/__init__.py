"""The command `faas`: every command talks to a platform through its public API alone.

Commands that run servers (`up`, `migrate`, …) are not here: they register under the
entry point group `faas.commands`, and are there when `faas-mesh[server]` is installed.
"""

import sys

__all__ = ["main"]


def main() -> None:
    """Run what the command line says."""
    try:
        # Ctrl-C may come while the commands are still being read from disk.
        from faas.cli.main import main as run

        run()
    except KeyboardInterrupt:
        sys.exit(130)
