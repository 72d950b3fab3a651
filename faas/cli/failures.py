"""How a command ends, and what is said when it does not end well.

| exit code | it ended because |
|---|---|
| 0 | it did what it was asked |
| 1 | the function failed: its own error, its time-out, or it does not compile |
| 2 | the command line, a manifest or a payload cannot be |
| 3 | there is no such function, version, invocation or worker |
| 4 | the server refused: a field, a conflict, too large |
| 5 | no server answers, or a part of it does not; nothing was changed |
| 6 | it has not ended within the time that was waited |
| 7 | the server wants another credential |
| 8 | the server does not know the call, or made a mistake |
| 130 | Ctrl-C |

A refused call is told with the field, and with what can be done about it.
"""

import enum
import sys
from typing import Any

from typer.core import TyperGroup
from typer.exceptions import Exit

from faas import errors


class ExitCode(enum.IntEnum):
    """What a command's exit code says."""

    DONE = 0
    FUNCTION_FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4
    UNAVAILABLE = 5
    WAITED = 6
    CREDENTIAL = 7
    SERVER = 8
    INTERRUPTED = 130


_CODES: tuple[tuple[type[errors.FaasError], ExitCode], ...] = (
    (errors.FunctionFailed, ExitCode.FUNCTION_FAILED),
    (errors.BuildFailed, ExitCode.FUNCTION_FAILED),
    (errors.InvalidPayload, ExitCode.USAGE),
    (errors.InvalidSettings, ExitCode.USAGE),
    (errors.UnusableSource, ExitCode.USAGE),
    (errors.NotFound, ExitCode.NOT_FOUND),
    (errors.WaitTimeout, ExitCode.WAITED),
    (errors.Unauthenticated, ExitCode.CREDENTIAL),
    (errors.PermissionDenied, ExitCode.CREDENTIAL),
    (errors.Unavailable, ExitCode.UNAVAILABLE),
    (errors.DeadlineExceeded, ExitCode.UNAVAILABLE),
    (errors.NotSupported, ExitCode.SERVER),
    (errors.ServerError, ExitCode.SERVER),
    (errors.CallFailed, ExitCode.REFUSED),
)

# What to do, where the message does not say it already.
_CURES: tuple[tuple[type[errors.FaasError], str], ...] = (
    (
        errors.Unavailable,
        "Is it up? `faas up` starts one on this machine; `faas --server URL` or `faas context use`"
        " names another; `faas doctor` looks for what is wrong.",
    ),
    (errors.DeadlineExceeded, "Try again, or look with `faas doctor`."),
    (errors.FunctionNotFound, "`faas ls` lists the functions there are."),
    (errors.InvocationNotFound, "`faas invocations ls` lists the latest."),
    (errors.ScheduleNotFound, "`faas schedules ls` lists the schedules there are."),
    (errors.WorkerNotFound, "`faas workers ls` lists the workers there are."),
    (errors.VersionNotFound, "`faas versions NAME` lists its versions."),
    (
        errors.BuildFailed,
        "It is deployed, and calls of it fail; `--validate` refuses such code and changes nothing.",
    ),
    (errors.EtagMismatch, "Somebody changed it meanwhile: look with `faas get`, then do it again."),
    (
        errors.Unauthenticated,
        "Give a credential in FAAS_TOKEN, or store it: `faas context set NAME --token-stdin`.",
    ),
    (errors.PermissionDenied, "Ask for it whoever gave you the credential, or use another one."),
    (
        errors.NotSupported,
        "Bring both to one version, or name another server: `faas doctor` looks at which it is.",
    ),
    (errors.ServerError, "Try again; if it stays so, look for it in the server's log."),
)


class Failed(Exception):
    """A command cannot go on: what to say, and the exit code."""

    def __init__(self, message: str, code: ExitCode = ExitCode.USAGE) -> None:
        super().__init__(message)
        self.code = code


class Group(TyperGroup):
    """Commands whose errors are told to people, without a traceback."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except Failed as failure:
            say(str(failure))
            raise Exit(failure.code) from failure
        except errors.FaasError as error:
            say(explain(error))
            raise Exit(exit_code(error)) from error


def exit_code(error: errors.FaasError) -> ExitCode:
    """What a command that met `error` ends with."""
    return next((code for kind, code in _CODES if isinstance(error, kind)), ExitCode.SERVER)


def explain(error: errors.FaasError) -> str:
    """What went wrong, and what to do about it."""
    lines = [str(error)]
    if isinstance(error, errors.CallFailed):
        named = [v for v in error.violations if v.field not in error.message]
        lines += [f"  {v.field}: {v.description}" for v in named]
    if isinstance(error, errors.Unavailable) and error.reason:
        lines.append("`faas doctor` looks for what is wrong.")  # it answers, but a part does not
    else:
        lines += [cure for kind, cure in _CURES if isinstance(error, kind)]
    return "\n".join(lines)


def say(message: str) -> None:
    """Tell people, not pipes."""
    print(message, file=sys.stderr)
