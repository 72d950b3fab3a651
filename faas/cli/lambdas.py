"""Handlers that were written for AWS Lambda: an adapter beside them, and they stay as they are."""

import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import resources
from pathlib import Path

from faas.cli.failures import Failed
from faas.sources import files_of

HANDLER = "faas_lambda.handler"
"""What the platform calls; it calls theirs."""
_FILE = "faas_lambda.py"
_NAME = re.compile(r"[A-Za-z_][\w/.-]*\.[A-Za-z_]\w*")


@contextmanager
def adapted(path: Path, handler: str, *, name: str, memory_mb: int) -> Iterator[Path]:
    """A copy of the code with the adapter in it, as long as the context lasts."""
    if not _NAME.fullmatch(handler):
        raise Failed(f"--lambda {handler!r} must be module.function, as Lambda has it.")
    with tempfile.TemporaryDirectory(prefix="faas-lambda-") as directory:
        copy = Path(directory) / "code"
        copy.mkdir()
        files = files_of(path) if path.is_dir() else [(path, path.name)]
        for file, file_name in files:
            (copy / file_name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(file, copy / file_name)
        module = copy / f"{handler.rpartition('.')[0].replace('.', '/')}.py"
        if not module.exists():
            raise Failed(
                f"{path} has no {module.relative_to(copy)}, which --lambda {handler} names."
            )
        template = resources.files("faas.cli") / "adapters" / f"{_FILE}.template"
        text = template.read_text(encoding="utf-8")
        for field, value in {"handler": handler, "name": name, "memory_mb": memory_mb}.items():
            text = text.replace(f"@{field}@", str(value))
        (copy / _FILE).write_text(text, encoding="utf-8")
        yield copy
