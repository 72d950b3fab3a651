"""faas-mesh: the client side of a self-hosted Function-as-a-Service platform.

The generated stubs of the whole API are in `faas.v1`; the `faas` command is in
`faas.cli`.
"""

__version__ = "0.1.0"

__all__ = ["__version__"]
