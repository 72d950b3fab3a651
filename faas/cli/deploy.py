"""`faas deploy`: from a file, a folder or an archive to a function that answers."""

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from faas import settings
from faas.cli import lambdas, manifest
from faas.cli.dependencies import resolved
from faas.cli.failures import Failed, say
from faas.cli.functions import FUNCTION
from faas.cli.options import pairs
from faas.cli.output import Format, Output, busy, show, size
from faas.cli.session import connected
from faas.v1.function_pb2 import Function, FunctionVersion
from faas.v1.worker_pb2 import Worker

if TYPE_CHECKING:
    from faas.client import Client
    from faas.sources import Code

LOOK_S = 0.5


def deploy(
    ctx: typer.Context,
    path: Annotated[
        Path, typer.Argument(help="File, folder or archive (zip, tar.gz); or a faas.toml.")
    ] = Path(),
    *,
    name: Annotated[str, typer.Option(help="What it is called.", show_default=False)] = "",
    runtime: Annotated[
        str, typer.Option(help="python, node, go, …", show_default="told from the code")
    ] = "",
    handler: Annotated[
        str | None,
        typer.Option(help="module.callable, or a module.", show_default="told from the code"),
    ] = None,
    description: Annotated[str | None, typer.Option(help="What it does.")] = None,
    memory_mb: Annotated[int | None, typer.Option("--memory", help="Memory limit in MiB.")] = None,
    cpus: Annotated[float | None, typer.Option(help="CPU limit in cores.")] = None,
    timeout: Annotated[str | None, typer.Option(help="Of one attempt, such as 30s.")] = None,
    env: Annotated[list[str] | None, typer.Option("--env", "-e", help="KEY=VALUE, again.")] = None,
    label: Annotated[list[str] | None, typer.Option("--label", "-l", help="KEY=VALUE.")] = None,
    lambda_: Annotated[
        str,
        typer.Option(
            "--lambda",
            help="module.function of a handler written for AWS Lambda (Python), as it is.",
            show_default=False,
        ),
    ] = "",
    deps: Annotated[
        bool, typer.Option("--deps/--no-deps", help="Put what it depends on into the archive.")
    ] = True,
    validate: Annotated[
        bool,
        typer.Option("--validate", help="Refuse code that does not compile, changing nothing."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")
    ] = False,
    wait: Annotated[
        float, typer.Option(min=0, help="Seconds to wait for a worker that has the runtime.")
    ] = 10.0,
    output: Output = Format.TABLE,
) -> None:
    """Create a function, or change the one of this name to what is here.

    Settings are those of faas.toml, and of options, which come first; what neither says
    stays as it is. What depends on other packages (requirements.txt, package.json,
    go.mod) gets them into its archive. What has to be compiled is waited for.
    """
    found = manifest.find(path)
    given = {
        **dict(found.settings),
        **_given(handler=handler, description=description, memory_mb=memory_mb, cpus=cpus),
        **_given(timeout=timeout),
        **_given(env=_maybe("--env", env), labels=_maybe("--label", label)),
    }
    lambda_ = lambda_ or found.lambda_handler
    if lambda_:
        given["handler"] = lambdas.HANDLER
    settings.known(given)
    called = name or found.name
    memory = given.get("memory_mb", 128)
    with (
        _ready(found.code, runtime or found.runtime, deps=deps) as (folder, language),
        _adapted(folder, lambda_, called, memory) as final,
        _code(final, found.code, language) as code,
        connected(ctx) as client,
    ):
        called = called or code.name
        if not called:
            raise Failed("What is it to be called? Say so with --name.")
        before = _look(client, called)
        if dry_run:
            after = _planned(before, called, code, given)
        else:
            after = _deployed(client, called, code, given, validate=validate)
            ready = _is_ready(client, after.runtime, wait)
            if ready:
                with busy(f"Compiling {called} …"):
                    after = client.function(called).ready()
            if not ready:
                say(
                    f"No worker runs {after.runtime} now: invocations wait until one does."
                    " `faas workers ls` shows those there are."
                )
            elif after.state == FunctionVersion.BUILDING:
                say("It is still being compiled: invocations wait. `faas versions` tells.")
    _tell(before, after, dry_run=dry_run)
    if output is not Format.TABLE:
        show(FUNCTION, after, output)


@contextmanager
def _ready(path: Path, runtime: str, *, deps: bool) -> Iterator[tuple[Path, str]]:
    """The code with what it depends on, and its runtime; empty where it is not known."""
    from faas.sources import RUNTIMES, folder_runtime

    if not path.exists():
        raise Failed(f"{path} is not there.")
    if not runtime:
        runtime = folder_runtime(path) if path.is_dir() else RUNTIMES.get(path.suffix, "")
    with resolved(path, runtime if deps else "") as folder:
        yield folder, runtime


@contextmanager
def _adapted(path: Path, handler: str, name: str, memory_mb: int) -> Iterator[Path]:
    from faas.sources import function_name

    if not handler:
        yield path
        return
    called = name or function_name(path)
    with lambdas.adapted(path, handler, name=called, memory_mb=memory_mb) as folder:
        yield folder


@contextmanager
def _code(path: Path, named_by: Path, runtime: str) -> Iterator["Code"]:
    from dataclasses import replace

    from faas.sources import function_name, prepared

    with prepared(path) as code:
        yield replace(code, name=function_name(named_by), runtime=runtime or code.runtime)


def _look(client: "Client", name: str) -> Function | None:
    from faas.errors import FunctionNotFound

    try:
        return client.function(name).refresh()
    except FunctionNotFound:
        return None


def _deployed(
    client: "Client", name: str, code: "Code", given: Mapping[str, Any], *, validate: bool
) -> Function:
    try:
        with busy(f"Deploying {name} …"):
            function = client.function(name)
            return function.deploy(code, validate=validate, build_timeout_s=0, **given)
    except KeyboardInterrupt:
        say(
            f"\nWhether it was deployed is not known: `faas get {name}` tells. The same command"
            " again goes on, and changes nothing that is so already."
        )
        raise


def _planned(
    before: Function | None, name: str, code: "Code", given: Mapping[str, Any]
) -> Function:
    """What a deployment would make of it; what only a server can decide stays open."""
    from faas.v1.function_service_pb2 import UpdateFunctionRequest

    request = settings.fill(UpdateFunctionRequest(), given)
    after = Function()
    after.CopyFrom(before or Function(name=name, runtime=code.runtime))
    for field, value in given.items():
        _clear(after, field, value)
    after.MergeFrom(_as_function(request))
    if code.runtime:
        after.runtime = code.runtime
    after.code_sha256, after.code_size_bytes = _digest(code), code.size_bytes
    return after


def _clear(function: Function, field: str, value: Any) -> None:
    """Make room for `value`; of a table's entries, only for those that it has."""
    kind = function.DESCRIPTOR.fields_by_name[field].message_type
    is_table = kind is not None and not kind.GetOptions().map_entry
    if is_table and isinstance(value, Mapping) and value:
        for part in value:
            getattr(function, field).ClearField(part)
    else:
        function.ClearField(field)  # type: ignore[arg-type]


def _as_function(request: Any) -> Function:
    found = Function()
    for field, value in request.ListFields():
        if field.name in settings.NAMES:
            target = getattr(found, field.name)
            if field.message_type is None:
                setattr(found, field.name, value)
            elif field.message_type.GetOptions().map_entry:
                target.update(value)
            else:
                target.CopyFrom(value)
    return found


def _digest(code: "Code") -> str:
    if code.text is not None:
        return hashlib.sha256(code.text.encode()).hexdigest()
    digest = hashlib.sha256()
    with code.open() as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _tell(before: Function | None, after: Function, *, dry_run: bool) -> None:
    would = "would be " if dry_run else ""
    if before is None:
        say(f"{after.name} {would}created ({after.runtime}, {size(after.code_size_bytes)}).")
    else:
        lines = list(differences(before, after))
        if not lines:
            say(f"{after.name} is as it was: version {after.version}.")
            return
        moved = f", version {before.version} -> {after.version}"
        moved = moved if before.version != after.version else ""
        say(f"{after.name} {would}changed{moved}:")
        for line in lines:
            say(f"  {line}")
    if not dry_run:
        say(f"Invoke it: faas invoke {after.name} '{{}}'")


def differences(before: Function, after: Function) -> Iterator[str]:
    """What differs, a line each."""
    old, new = _flat(before), _flat(after)
    for key in {**old, **new}:
        if old.get(key, "-") != new.get(key, "-"):
            yield f"{key}: {old.get(key, '-')} -> {new.get(key, '-')}"


def _flat(function: Function) -> dict[str, str]:
    found: dict[str, str] = {"runtime": function.runtime}
    for name, value in settings.values(function).items():
        if isinstance(value, dict):
            found |= {f"{name}.{key}": str(item) for key, item in sorted(value.items())}
        else:
            found[name] = str(value) if value != "" else "-"
    found["code"] = f"{function.code_sha256[:12]} ({size(function.code_size_bytes)})"
    return found


def _is_ready(client: "Client", runtime: str, wait_s: float) -> bool:
    """Whether somebody can run it: without, it is deployed and not ready."""
    deadline = time.monotonic() + wait_s
    while not any(_can_run(worker, runtime) for worker in client.workers()):
        if time.monotonic() > deadline:
            return False
        time.sleep(LOOK_S)
    return True


def _can_run(worker: Worker, runtime: str) -> bool:
    return worker.state == Worker.READY and any(r.name == runtime for r in worker.runtimes)


def _given(**values: Any) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value is not None}


def _maybe(option: str, given: list[str] | None) -> dict[str, str] | None:
    return pairs(option, given) if given is not None else None
