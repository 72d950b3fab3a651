"""What `import faas` gives, and what it costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import faas


def test_all_names_are_there_and_documented():
    for name in faas.__all__:
        found = getattr(faas, name)
        assert name == "__version__" or found.__doc__, name


def test_all_is_what_type_checkers_see():
    tree = ast.parse(Path(faas.__file__).read_text())
    seen = {
        alias.asname
        for node in ast.walk(tree)
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("faas.")
        for alias in node.names
    }
    assert seen | {"__version__"} == set(faas.__all__)


def test_every_public_error_is_exported():
    from faas import errors

    def kinds(kind):
        yield kind.__name__
        for narrower in kind.__subclasses__():
            yield from kinds(narrower)

    assert set(kinds(errors.FaasError)) <= set(faas.__all__)


def test_dir_has_the_public_names():
    assert set(faas.__all__) <= set(dir(faas))


def test_unknown_names_are_attribute_errors():
    with pytest.raises(AttributeError, match="Clients"):
        _ = faas.Clients


def test_the_import_alone_loads_no_grpc():
    code = (
        "import sys, faas; assert 'grpc' not in sys.modules; "
        "faas.Client; assert 'grpc' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_sdk_loads_no_server_dependency():
    code = (
        "import sys, faas.client; "
        "assert not {'services', 'protovalidate', 'sqlalchemy', 'aiohttp'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
