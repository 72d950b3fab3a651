"""Which handler a source has, where its creator named none.

The source decides once, when the function is created: a top-level `handler` (in Go
`func Handler`) makes it `main.handler`; without one the file is run as a program,
`main`. Nothing is run to find out. The server decides by this, and so does whoever
runs a function by hand.
"""

import ast
import re

MAIN_FILES = {
    "python": ("main.py",),
    "node": ("main.js", "main.mjs", "main.cjs"),
    "go": ("main.go",),
}
# What is longer is not parsed: its text decides.
MAX_SOURCE_BYTES = 1024 * 1024

_NODE = re.compile(
    r"""^\s*(?:module\.)?exports\.handler\s*=
      |^\s*export\s+(?:async\s+)?(?:function\s*\*?|const|let|var|class)\s+handler\b
      |^\s*export\s*\{[^}]*\bhandler\b[^}]*\}
      |^\s*module\.exports\s*=\s*\{[^}]*\bhandler\b""",
    re.MULTILINE | re.VERBOSE,
)
_GO = re.compile(r"^func\s+Handler\s*\(", re.MULTILINE)


def module_files(runtime: str, handler: str) -> tuple[str, ...]:
    """The files of which one must be there for this handler.

    Empty: this runtime is not one of ours, and its image knows what it wants.
    """
    module = handler.partition(".")[0]
    mains = MAIN_FILES.get(runtime, ())
    if runtime == "go":
        return mains  # a package has no modules
    return tuple(name.replace("main", module, 1) for name in mains)


def detect(runtime: str, source: bytes) -> str:
    """The handler that the source of the main file decides."""
    text = source.decode(errors="replace")
    if runtime == "go":
        return "main.Handler" if _GO.search(text) else "main"
    if runtime == "node":
        return "main.handler" if _NODE.search(text) else "main"
    if runtime == "python" and _python_has_handler(text):
        return "main.handler"
    return "main"


def _python_has_handler(text: str) -> bool:
    try:
        if len(text) > MAX_SOURCE_BYTES:
            raise ValueError
        tree = ast.parse(text)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        # It will say so itself when it is invoked; as what, its text decides.
        return re.search(r"^(?:async\s+)?def\s+handler\b", text, re.MULTILINE) is not None
    return any("handler" in _names(node) for node in tree.body)


def _names(node: ast.stmt) -> set[str]:
    match node:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            return {node.name}
        case ast.Assign():
            return {target.id for target in node.targets if isinstance(target, ast.Name)}
        case ast.AnnAssign(target=ast.Name(id=name)):
            return {name}
        case ast.Import() | ast.ImportFrom():
            return {alias.asname or alias.name for alias in node.names}
    return set()
