"""faas-mesh: the client side of a self-hosted Function-as-a-Service platform.

    import faas

    client = faas.Client()
    hello = client.deploy("hello.py")
    hello({"name": "World"})

The generated stubs of the whole API are in `faas.v1`; the `faas` command is in
`faas.cli`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

if TYPE_CHECKING:
    from faas.client import AsyncClient as AsyncClient
    from faas.client import Client as Client
    from faas.errors import BuildFailed as BuildFailed
    from faas.errors import CallFailed as CallFailed
    from faas.errors import Conflict as Conflict
    from faas.errors import DeadlineExceeded as DeadlineExceeded
    from faas.errors import EtagMismatch as EtagMismatch
    from faas.errors import FaasError as FaasError
    from faas.errors import FieldViolation as FieldViolation
    from faas.errors import FunctionExists as FunctionExists
    from faas.errors import FunctionFailed as FunctionFailed
    from faas.errors import FunctionNotFound as FunctionNotFound
    from faas.errors import InvalidArchive as InvalidArchive
    from faas.errors import InvalidCode as InvalidCode
    from faas.errors import InvalidFilter as InvalidFilter
    from faas.errors import InvalidPageToken as InvalidPageToken
    from faas.errors import InvalidPayload as InvalidPayload
    from faas.errors import InvalidRequest as InvalidRequest
    from faas.errors import InvalidSettings as InvalidSettings
    from faas.errors import InvocationEnded as InvocationEnded
    from faas.errors import InvocationNotFound as InvocationNotFound
    from faas.errors import InvocationUnfinished as InvocationUnfinished
    from faas.errors import NoResult as NoResult
    from faas.errors import NotFound as NotFound
    from faas.errors import NotSupported as NotSupported
    from faas.errors import PermissionDenied as PermissionDenied
    from faas.errors import RequestIdReused as RequestIdReused
    from faas.errors import ResultNotFound as ResultNotFound
    from faas.errors import ScheduleNotFound as ScheduleNotFound
    from faas.errors import ServerError as ServerError
    from faas.errors import TooLarge as TooLarge
    from faas.errors import TooMuch as TooMuch
    from faas.errors import Unauthenticated as Unauthenticated
    from faas.errors import Unavailable as Unavailable
    from faas.errors import UnknownRuntime as UnknownRuntime
    from faas.errors import UnusableSource as UnusableSource
    from faas.errors import UploadNotFound as UploadNotFound
    from faas.errors import VersionNotFound as VersionNotFound
    from faas.errors import WaitTimeout as WaitTimeout
    from faas.errors import WorkerNotFound as WorkerNotFound
    from faas.functions import Answer as Answer
    from faas.functions import AsyncFunction as AsyncFunction
    from faas.functions import Function as Function
    from faas.invocations import AsyncInvocation as AsyncInvocation
    from faas.invocations import Invocation as Invocation
    from faas.local import LocalFunction as LocalFunction
    from faas.local import function as function
    from faas.schedules import AsyncSchedule as AsyncSchedule
    from faas.schedules import Schedule as Schedule
    from faas.sources import Code as Code

# Looked up when first used: servers and `faas --help` do not pay for the client.
_HOMES = {
    "faas.client": ("AsyncClient", "Client"),
    "faas.functions": ("Answer", "AsyncFunction", "Function"),
    "faas.invocations": ("AsyncInvocation", "Invocation"),
    "faas.local": ("LocalFunction", "function"),
    "faas.schedules": ("AsyncSchedule", "Schedule"),
    "faas.sources": ("Code",),
    "faas.errors": (
        *("BuildFailed", "CallFailed", "Conflict", "DeadlineExceeded", "EtagMismatch", "FaasError"),
        *("FieldViolation", "FunctionExists", "FunctionFailed", "FunctionNotFound"),
        *("InvalidArchive", "InvalidCode", "InvalidFilter", "InvalidPageToken", "InvalidPayload"),
        *("InvalidRequest", "InvalidSettings", "InvocationEnded", "InvocationNotFound"),
        *("InvocationUnfinished", "NoResult", "NotFound", "NotSupported", "PermissionDenied"),
        *("RequestIdReused", "ResultNotFound", "ScheduleNotFound", "ServerError", "TooLarge"),
        *("TooMuch", "Unauthenticated", "Unavailable", "UnknownRuntime", "UnusableSource"),
        *("UploadNotFound", "VersionNotFound", "WaitTimeout", "WorkerNotFound"),
    ),
}
_HOME = {name: home for home, names in _HOMES.items() for name in names}

__all__ = ["__version__", *sorted(_HOME)]  # noqa: PLE0604


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'faas' has no attribute {name!r}")
    found = getattr(import_module(_HOME[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
