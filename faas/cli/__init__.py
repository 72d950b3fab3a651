"""The command `faas`: every command talks to a platform through its public API alone.

Commands that run servers (`up`, `migrate`, …) are not here: they register under the
entry point group `faas.commands`, and are there when `faas-mesh[server]` is installed.
"""

from faas.cli.main import main

__all__ = ["main"]
