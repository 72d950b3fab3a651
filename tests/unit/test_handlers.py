"""Which handler a source has."""

import pytest

from faas.handlers import detect, module_files


@pytest.mark.parametrize(
    ("runtime", "source", "handler"),
    [
        ("python", "def handler(payload, context): ...", "main.handler"),
        ("python", "async def handler(payload): ...", "main.handler"),
        ("python", "import x\nhandler = x.make()", "main.handler"),
        ("python", "handler: object = lambda p: p", "main.handler"),
        ("python", "from lib.app import main as handler", "main.handler"),
        ("python", "from lib import handler", "main.handler"),
        ("python", "class handler: ...", "main.handler"),
        ("python", "def handler(p):\n  return (", "main.handler"),
        ("python", "print('hello')", "main"),
        ("python", "class A:\n  def handler(self): ...", "main"),
        ("python", "'''\ndef handler(): ...\n'''", "main"),
        ("python", "def handlers(p): ...", "main"),
        ("python", "((((", "main"),
        ("python", "-" * 100_000 + "1", "main"),
        ("node", "exports.handler = async (p) => p", "main.handler"),
        ("node", "module.exports.handler = (p) => p", "main.handler"),
        ("node", "module.exports = { other, handler }", "main.handler"),
        ("node", "module.exports = {\n  handler: async (p) => p,\n}", "main.handler"),
        ("node", "export async function handler(p) {}", "main.handler"),
        ("node", "export const handler = (p) => p", "main.handler"),
        ("node", "const f = 1\nexport { f as handler }", "main.handler"),
        ("node", "function handler() {}\nconsole.log(1)", "main"),
        ("node", "// exports.handler = 1", "main"),
        ("go", "package main\n\nfunc Handler(ctx context.Context) {}", "main.Handler"),
        ("go", "package main\n\nfunc main() {}", "main"),
        ("go", "package main\n\nfunc (s S) Handler() {}", "main"),
        ("ruby", "def handler(payload)", "main"),
    ],
)
def test_the_source_decides(runtime: str, source: str, handler: str) -> None:
    assert detect(runtime, source.encode()) == handler


def test_a_source_that_is_no_text_is_a_program() -> None:
    assert detect("python", b"\xff\xfe\x00") == "main"


@pytest.mark.parametrize(
    ("runtime", "handler", "files"),
    [
        ("python", "main", ("main.py",)),
        ("python", "app.run", ("app.py",)),
        ("node", "app.run", ("app.js", "app.mjs", "app.cjs")),
        ("go", "main.Handler", ("main.go",)),
        ("ruby", "main.handler", ()),
    ],
)
def test_a_handler_needs_its_modules_file(
    runtime: str, handler: str, files: tuple[str, ...]
) -> None:
    assert module_files(runtime, handler) == files
