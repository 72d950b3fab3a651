"""`faas init`: a function to begin with, and a test of it."""

import shutil
import tempfile
from enum import StrEnum
from importlib import resources
from pathlib import Path
from typing import Annotated

import typer

from faas.cli.failures import Failed, say
from faas.cli.manifest import FILE
from faas.sources import IGNORE_FILE, function_name

_ENDING = ".template"
_TESTS = {"python": "test_*.py", "node": "*.test.js", "go": "*_test.go"}
_RUN_TESTS = {"python": "python -m unittest", "node": "node --test", "go": "go test"}


class Runtime(StrEnum):
    """What there is a template of."""

    PYTHON = "python"
    NODE = "node"
    GO = "go"


def init(
    directory: Annotated[
        Path, typer.Argument(help="Where to; it is made if it is not there.")
    ] = Path(),
    *,
    runtime: Annotated[Runtime, typer.Option("--runtime", "-r", help="In which language.")] = (
        Runtime.PYTHON
    ),
    name: Annotated[
        str, typer.Option(help="What it is called.", show_default="the folder's name")
    ] = "",
) -> None:
    """Begin a function: code, a test of it, and faas.toml. Nothing that is there is touched."""
    name = name or function_name(directory)
    if not name:
        raise Failed(f"No function's name can be made of {directory}: say one with --name.")
    files = _files(runtime.value, name)
    there = [file for file in files if (directory / file).exists()]
    if there:
        raise Failed(f"{directory} has {', '.join(there)} already: nothing was written.")
    _write(directory, files)
    for file in files:
        say(f"  {directory / file}")
    where = "" if directory == Path() else f" {directory}"
    inside = "" if directory == Path() else f"cd {directory} && "
    say(
        f"Test it:    {inside}{_RUN_TESTS[runtime]}\n"
        f'Try it:     faas dev{where} --payload \'{{"name": "Ada"}}\'\n'
        f"Deploy it:  faas deploy{where}"
    )


def _files(runtime: str, name: str) -> dict[str, str]:
    templates = resources.files("faas.cli") / "templates" / runtime
    files = {
        entry.name.removesuffix(_ENDING): entry.read_text(encoding="utf-8").replace("@name@", name)
        for entry in templates.iterdir()
        if entry.name.endswith(_ENDING)
    }
    files[FILE] = f'name = "{name}"\nruntime = "{runtime}"\ntimeout = "30s"\nmemory_mb = 128\n'
    files[IGNORE_FILE] = f"# What stays here when the function is deployed.\n{_TESTS[runtime]}\n"
    return dict(sorted(files.items()))


def _write(directory: Path, files: dict[str, str]) -> None:
    """All of them or none."""
    made = not directory.exists()
    written: list[Path] = []
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory, prefix=".faas-init-") as aside:
            for file, text in files.items():
                (Path(aside) / file).write_text(text, encoding="utf-8")
            for file in files:
                shutil.move(Path(aside) / file, directory / file)
                written.append(directory / file)
    except BaseException as error:
        for path in written:
            path.unlink(missing_ok=True)
        if made and directory.is_dir() and not any(directory.iterdir()):
            directory.rmdir()
        if isinstance(error, OSError):
            raise Failed(f"{error.filename or directory}: {error.strerror}.") from error
        raise
