"""What a shell is offered for an argument: names that the server has, or nothing.

A shell waits for this while somebody types: one page, one second, no error shown.
"""

from itertools import islice

from faas.cli.session import Session, connected_as

TIMEOUT_S = 1.0
MOST = 200


def function_names(ctx: object, incomplete: str) -> list[str]:
    """Names of functions that begin so."""
    from faas.errors import FaasError

    try:
        with connected_as(_session(ctx)) as client:
            found = islice(client.functions(order_by="name", page_size=MOST), MOST)
            return [f.name for f in found if f.name.startswith(incomplete)]
    except FaasError:
        return []


def context_names(incomplete: str) -> list[str]:
    """Names of contexts that begin so."""
    from faas import contexts
    from faas.errors import FaasError

    try:
        known = contexts.load(contexts.path()).servers
    except FaasError:
        return []
    return sorted(name for name in known if name.startswith(incomplete))


def _session(ctx: object) -> Session:
    """What was typed before the command; a shell's completion runs no callback."""
    parent = getattr(ctx, "parent", None)
    parameters = getattr(parent, "params", None) or {}
    return Session(parameters.get("server"), parameters.get("context"), TIMEOUT_S)
