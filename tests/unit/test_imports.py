"""Who may import whom: what keeps it a mesh of services, and the client small."""

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SERVICES = ("functions", "gateway", "invocations", "worker")
# What the client installs, see pyproject.toml; `rich` and `typer` are the command's.
CLIENT = {"faas", "google", "grpc", "grpc_status", "rich", "typer"}
# Besides the server and the wiring: those who call a neighbour.
KNOW_GRPC = {
    "services/channels.py",
    "services/gateway/probes.py",
    "services/invocations/functions.py",
    "services/invocations/limits.py",
    "services/server.py",
    "services/worker/link.py",
}


def sources(*folders: str) -> Iterator[Path]:
    for folder in folders:
        for file in sorted((ROOT / folder).rglob("*.py")):
            if not {"v1", "_vendor", "__pycache__"}.intersection(file.relative_to(ROOT).parts):
                yield file


def imports(file: Path) -> Iterator[str]:
    """The modules that a file imports, wherever in it; `x` and `x.y` for `from x import y`."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{file}: imports are absolute"
            yield node.module or ""
            yield from (f"{node.module}.{name.name}" for name in node.names)


def of(folder: str, *modules: str) -> list[str]:
    """Imports below `folder` that are of one of `modules`."""
    return [
        f"{file.relative_to(ROOT)}: {name}"
        for file in sources(folder)
        for name in imports(file)
        if any(name == module or name.startswith(f"{module}.") for module in modules)
    ]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_imports_no_sibling(service: str) -> None:
    siblings = [f"services.{other}" for other in SERVICES if other != service]
    assert of(f"services/{service}", *siblings, "services.supervisor") == []


def test_what_services_share_knows_none_of_them() -> None:
    shared = [file for file in sources("services") if file.parent == ROOT / "services"]
    assert len(shared) > 5
    for file in shared:
        for name in imports(file):
            assert name.split(".")[1:2] not in ([s] for s in SERVICES), f"{file.name}: {name}"


def test_the_client_imports_no_service() -> None:
    assert of("faas", "services") == []


def test_the_client_imports_what_it_installs() -> None:
    known = CLIENT | sys.stdlib_module_names
    others = {
        f"{file.relative_to(ROOT)}: {name}"
        for file in sources("faas")
        for name in imports(file)
        if name.split(".")[0] not in known
    }
    assert others == set()


def test_few_know_grpc() -> None:
    knowing = {
        str(file.relative_to(ROOT))
        for file in sources("services")
        for name in imports(file)
        if name.split(".")[0].startswith("grpc") and file.name != "__main__.py"
    }
    assert knowing <= KNOW_GRPC


def test_shims_import_the_standard_library_alone() -> None:
    shims = list(sources("runtimes/python"))
    assert shims
    for file in shims:
        for name in imports(file):
            assert name.split(".")[0] in sys.stdlib_module_names, f"{file}: {name}"


def test_node_s_shim_requires_node_s_own_modules_alone() -> None:
    text = (ROOT / "runtimes/node/shim.js").read_text()
    required = re.findall(r"require\('([^']+)'\)|from '([^']+)'", text)
    assert required
    for names in required:
        assert any(name.startswith("node:") for name in names), names


def test_go_s_shim_imports_the_standard_library_alone() -> None:
    for file in (ROOT / "runtimes/go").glob("*.go"):
        block = re.search(r"^import \((.*?)^\)", file.read_text(), re.DOTALL | re.MULTILINE)
        assert block, file
        for name in re.findall(r'"([^"]+)"', block.group(1)):
            assert "." not in name.split("/")[0], f"{file.name}: {name}"
