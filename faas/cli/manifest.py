"""`faas.toml`: what a function is called and how it runs, beside its code.

    name = "resize"
    runtime = "python"           # told from the main file where it is not said
    code = "src"                 # file, folder or archive; the manifest's folder without it
    lambda = "app.handler"       # only for a handler that was written for AWS Lambda
    memory_mb = 256
    timeout = "10s"

    [env]
    LEVEL = "debug"

Beside these it takes every setting of a function. What it says is so after a
deployment; what it does not say stays as it is.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from faas.cli.failures import Failed
from faas.settings import NAMES

FILE = "faas.toml"
_OWN = ("name", "runtime", "code", "lambda")


@dataclass(frozen=True)
class Manifest:
    """What is to be deployed."""

    code: Path
    name: str = ""
    runtime: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    lambda_handler: str = ""


def find(path: Path) -> Manifest:
    """The manifest of a folder or of itself; for any other code, an empty one."""
    if path.name == FILE:
        return _read(path)
    if path.is_dir() and (path / FILE).exists():
        return _read(path / FILE)
    return Manifest(path)


def _read(file: Path) -> Manifest:
    try:
        with file.open("rb") as stream:
            found = tomllib.load(stream)
    except OSError as error:
        raise Failed(f"{file} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Failed(f"{file} is no TOML: {error}.") from error
    known = (*_OWN, *NAMES)
    for name in found:
        if name not in known:
            near = difflib.get_close_matches(name, known, 1)
            hint = f"did you mean {near[0]}?" if near else f"it takes {', '.join(known)}."
            raise Failed(f"{file}: there is no {name!r}: {hint}")
    for name in _OWN:
        if not isinstance(found.get(name, ""), str):
            raise Failed(f"{file}: {name} must be text.")
    settings = {name: value for name, value in found.items() if name in NAMES}
    code = file.parent / found.get("code", ".")
    return Manifest(
        code,
        found.get("name", ""),
        found.get("runtime", ""),
        settings,
        found.get("lambda", ""),
    )
