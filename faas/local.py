"""A function of this very program, as source that stands alone.

Nothing is pickled: what travels is the module's own text, less what the function
does not use. Left-out lines stay blank, so that stacks have the lines of your file.

    @faas.function(memory_mb=256)
    def resize(payload):
        ...

    resize({"width": 10})                 # here
    client.deploy(resize)({"width": 10})  # there
"""

import ast
import builtins
import functools
import inspect
import symtable
from collections.abc import Callable, Iterator
from typing import Any, Generic, ParamSpec, TypeVar, Unpack

from faas.errors import UnusableSource
from faas.settings import Settings, known
from faas.sources import Code

P = ParamSpec("P")
R = TypeVar("R")

_Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


class LocalFunction(Generic[P, R]):
    """A function with the settings that it is to be deployed with; called, it runs here."""

    def __init__(self, function: Callable[P, R], name: str, settings: Settings) -> None:
        """Wrap `function`, to be deployed as `name`."""
        self.function = function
        self.name = name
        self.settings = settings
        functools.update_wrapper(self, function)

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        """Run it here."""
        return self.function(*args, **kwargs)


def function(
    *, name: str = "", **settings: Unpack[Settings]
) -> Callable[[Callable[P, R]], LocalFunction[P, R]]:
    """Say at a Python function how it is to be deployed. It takes (payload, context)."""
    known(settings)

    def decorate(function: Callable[P, R]) -> LocalFunction[P, R]:
        return LocalFunction(function, name or _name(function), settings)

    return decorate


def code_of(function: Callable[..., Any]) -> Code:
    """The source of `function` and of all that it uses. Raises UnusableSource."""
    if isinstance(function, LocalFunction):
        return _code(function.function, function.name)
    return _code(function, _name(function))


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", "").lower().replace("_", "-").strip("-")


def _code(function: Callable[..., Any], name: str) -> Code:
    wanted = getattr(function, "__name__", repr(function))
    if not inspect.isfunction(function) or function.__qualname__ != wanted:
        raise UnusableSource(
            f"{wanted} is not a function at the top of a module; only such a one can be"
            " deployed. Give the code as a file instead."
        )
    try:
        source = inspect.getsource(inspect.getmodule(function) or function)
    except (OSError, TypeError) as error:
        raise UnusableSource(
            f"The source of {wanted} cannot be found: it was typed in. Give it as text instead."
        ) from error
    return Code("python", text=_only(source, wanted), handler=f"main.{wanted}", name=name)


def _only(source: str, wanted: str) -> str:
    """The lines of `source` that `wanted` needs, where they were."""
    module = _Module(source)
    kept = {line for s in module.tree.body if _is_future(s) for line in _lines(s)}
    pending, seen = [wanted], {*dir(builtins), "__file__"}
    while pending:
        name = pending.pop()
        if name in seen:
            continue
        seen.add(name)
        if name not in module.makers:
            raise UnusableSource(
                f"{wanted} uses {name}, which nothing at the top of its module makes by a plain"
                " import, def, class or assignment. Give the code as a file instead."
            )
        for statement in module.makers[name]:
            ours = module.our_decorators(statement)
            kept |= set(_lines(statement)).difference(*map(_lines, ours))
            pending.extend(module.used(statement, ours))
    text = (line if n in kept else "" for n, line in enumerate(source.splitlines(), 1))
    return "\n".join(text).rstrip() + "\n"


class _Module:
    """What the statements of a module make, and what each of them takes from it."""

    def __init__(self, source: str) -> None:
        self.tree = ast.parse(source)
        self.makers: dict[str, list[ast.stmt]] = {}
        for statement in self.tree.body:
            for name in _made(statement):
                self.makers.setdefault(name, []).append(statement)
        self._scopes = symtable.symtable(source, "main.py", "exec").get_children()

    def our_decorators(self, statement: ast.stmt) -> list[ast.expr]:
        """Those of this package, which is not there where the function runs."""
        return [
            decorator
            for decorator in getattr(statement, "decorator_list", ())
            if any(
                _is_from_faas(maker)
                for name in _loaded(decorator)
                for maker in self.makers.get(name, ())
            )
        ]

    def used(self, statement: ast.stmt, without: list[ast.expr]) -> Iterator[str]:
        """Names that a statement takes from the module."""
        if not isinstance(statement, _Definition):
            yield from _loaded(statement)
            return
        for scope in self._scopes:
            if scope.get_name() == statement.name and scope.get_lineno() in _lines(statement):
                yield from _globals(scope)
        # Decorators, defaults, annotations and bases belong to the module's own scope.
        for part in ast.iter_child_nodes(statement):
            if part not in without and part not in statement.body:
                yield from _loaded(part)


def _globals(scope: symtable.SymbolTable) -> Iterator[str]:
    yield from (symbol.get_name() for symbol in scope.get_symbols() if symbol.is_global())
    for inner in scope.get_children():
        yield from _globals(inner)


def _loaded(node: ast.AST) -> set[str]:
    names = [n for n in ast.walk(node) if isinstance(n, ast.Name)]
    stored = {n.id for n in names if not isinstance(n.ctx, ast.Load)}
    return {n.id for n in names} - stored


def _lines(node: ast.stmt | ast.expr) -> range:
    first = min((d.lineno for d in getattr(node, "decorator_list", ())), default=node.lineno)
    return range(first, (node.end_lineno or node.lineno) + 1)


def _made(statement: ast.stmt) -> Iterator[str]:
    match statement:
        case ast.FunctionDef() | ast.AsyncFunctionDef() | ast.ClassDef():
            yield statement.name
        case ast.Import():
            for alias in statement.names:
                yield alias.asname or alias.name.partition(".")[0]
        case ast.ImportFrom(level=0):
            for alias in statement.names:
                yield alias.asname or alias.name
        case ast.Assign():
            for target in statement.targets:
                yield from (n.id for n in ast.walk(target) if isinstance(n, ast.Name))
        case ast.AnnAssign(target=ast.Name(id=name)) | ast.AugAssign(target=ast.Name(id=name)):
            yield name


def _is_from_faas(statement: ast.stmt) -> bool:
    match statement:
        case ast.Import():
            return any(alias.name.partition(".")[0] == "faas" for alias in statement.names)
        case ast.ImportFrom(module=str(module)):
            return module.partition(".")[0] == "faas"
    return False


def _is_future(statement: ast.stmt) -> bool:
    return isinstance(statement, ast.ImportFrom) and statement.module == "__future__"
