"""Write the pages of the reference that are made from the code: `make docs`.

* `settings.md` from the settings classes of every service,
* `errors.md` from the protos' enums and their comments,
* `cli.md` from the commands,
* `api.md` from the protos.

`--out DIR` writes there instead, so that a test can prove the checked-in pages to be
current.
"""

import argparse
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    MethodDescriptorProto,
)
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined
from pydantic_settings import BaseSettings

from faas.cli.main import application
from faas.v1.error_reason_pb2 import ErrorReason
from faas.v1.invocation_pb2 import Invocation
from services.gateway import assets
from services.gateway.descriptors import Descriptors
from services.gateway.operations import bindings
from services.gateway.public import PUBLIC_SERVICES

HERE = Path(__file__).resolve().parent
SERVICES = HERE.parent.parent / "services"

SETTINGS = """\
# Settings

<!-- Made from the settings classes by `make docs`. -->

Every process reads its settings from its environment: `FAAS_<PART>_<NAME>`. `faas up` sets what \
its parts need to find each other, and passes the rest of its own environment's `FAAS_…` on to the \
part that it names, so `FAAS_WORKER_CONCURRENCY=16 faas up` works. What is marked *required* has \
no default; a process without it does not start, and says what is missing. Lists are separated by \
commas.

The client, the command `faas` and the Python package alike, reads `FAAS_SERVER` (the address of a \
gateway), `FAAS_CONTEXT` (the name of one that was saved) and `FAAS_TOKEN` (what it presents there).
"""

ERRORS = """\
# Errors

<!-- Made from the protos by `make docs`. -->

A call that is refused answers with a `google.rpc.Status`: a code, a message for people, and \
details. The first detail is an `ErrorInfo` with a `reason` from the table below and the domain \
`faas-mesh`; where fields are wrong, a `BadRequest` names each of them. Programs switch on the \
reason; the message may change. [http.md](http.md) shows the same over HTTP.

An invocation that was accepted and failed is no error of a call: the call is good, and the \
record's `error.code` says what happened.

## Reasons: the call was refused

| reason | meaning |
|---|---|
"""

CODES = """
## Codes: the invocation failed

| `error.code` | meaning |
|---|---|
"""

CLI = """\
# The command `faas`

<!-- Made from the commands by `make docs`. -->
"""

API = """\
# The API: services, calls, messages

<!-- Made from the protos by `make docs`. -->

This is `proto/faas/v1`, with its comments. Every call of the public services is there by gRPC and \
gRPC-Web, and by HTTP where a path is given; [http.md](http.md) says what is true of every call \
over HTTP, [errors.md](errors.md) what the reasons of refusals mean. The calls of the mesh are \
between its parts: the gateway does not route them.
"""
PREFIX = "faas.v1."


def generate(out: Path) -> None:
    """Write all pages into `out`."""
    (out / "settings.md").write_text(settings_page())
    (out / "errors.md").write_text(errors_page())
    (out / "cli.md").write_text(cli_page())
    (out / "api.md").write_text(api_page())


def settings_page() -> str:
    """Every setting of every part."""
    sections = [SETTINGS]
    for settings in settings_classes():
        title = f"{settings.__module__.split('.')[1]}: {_first_line(settings)}"
        rows = [
            _row(f"`{_variable(settings, name)}`", _default(field), field.description or "")
            for name, field in settings.model_fields.items()
        ]
        table = ["| variable | default | |", "|---|---|---|", *rows]
        sections.append("\n".join([f"## {title}", "", *table, ""]))
    return "\n".join(sections)


def settings_classes() -> Iterator[type[BaseSettings]]:
    """Those that processes are configured by, in the order of the parts' names."""
    for file in sorted(SERVICES.glob("*/settings.py")):
        module = importlib.import_module(f"services.{file.parent.name}.settings")
        for _, found in inspect.getmembers(module, inspect.isclass):
            here = found.__module__ == module.__name__ and not found.__name__.startswith("_")
            if here and issubclass(found, BaseSettings):
                yield found


def errors_page() -> str:
    """Every reason of a refusal and every code of a failure."""
    comments = Descriptors.parse(assets.DESCRIPTORS.read_bytes()).comments
    reasons = [
        _row(f"`{name}`", comments[f"faas.v1.ErrorReason.{name}"])
        for name, number in ErrorReason.items()
        if number
    ]
    codes = [
        _row(f"`{name}`", comments[f"faas.v1.Invocation.ErrorCode.{name}"])
        for name, number in Invocation.ErrorCode.items()
        if number
    ]
    return ERRORS + "\n".join(reasons) + "\n" + CODES + "\n".join(codes) + "\n"


def cli_page() -> str:
    """Every command with its arguments and options."""
    return CLI + "".join(_commands(typer.main.get_command(application()), ["faas"]))


def _commands(command: Any, path: list[str]) -> Iterator[str]:
    if command.hidden:
        return
    shown = [param for param in command.params if not getattr(param, "hidden", False)]
    arguments = [param for param in shown if param.param_type_name == "argument"]
    options = [param for param in shown if param.param_type_name == "option"]
    inner = getattr(command, "commands", {})
    usage = [*path, *(f"<{param.name}>" for param in arguments)]
    usage += ["[options]"] if options else []
    usage += ["<command>"] if inner else []
    text = inspect.cleandoc(command.help or "").replace("\f", "").strip()
    yield f"\n## `{' '.join(path)}`\n\n{text}\n\n    {' '.join(usage)}\n"
    if shown:
        rows = (_row(_parameter(param), _help(param)) for param in [*arguments, *options])
        yield "\n| | |\n|---|---|\n" + "\n".join(rows) + "\n"
    for name in sorted(inner):
        yield from _commands(inner[name], [*path, name])


def _parameter(param: Any) -> str:
    if param.param_type_name == "argument":
        return f"`<{param.name}>`"
    return ", ".join(f"`{name}`" for name in [*param.opts, *param.secondary_opts])


def _help(param: Any) -> str:
    parts = [getattr(param, "help", None) or ""]
    if param.required:
        parts.append("Required.")
    elif param.default not in (None, "", False, ()) and getattr(param, "show_default", True):
        default = getattr(param.default, "value", param.default)
        parts.append("" if callable(default) else f"Default: `{default}`.")
    if param.envvar:
        names = [param.envvar] if isinstance(param.envvar, str) else param.envvar
        parts.append("Environment: " + ", ".join(f"`{name}`" for name in names) + ".")
    return " ".join(filter(None, parts))


def api_page() -> str:
    """Every service, call, message and enum of the protos."""
    return API + "".join(_Api().sections())


class _Api:
    """Sections of the page of the API."""

    def __init__(self) -> None:
        self._all = Descriptors.parse(assets.DESCRIPTORS.read_bytes())

    def sections(self) -> Iterator[str]:
        mesh = sorted(n for n in self._all.services if _ours(n) and n not in PUBLIC_SERVICES)
        yield "\n## Public services\n"
        yield from (section for name in PUBLIC_SERVICES for section in self._service(name))
        yield "\n## Services of the mesh\n"
        yield from (section for name in mesh for section in self._service(name))
        yield "\n## Messages\n"
        for name, message in sorted(self._all.messages.items()):
            if _ours(name) and not message.options.map_entry:
                yield from self._message(name, message)
        yield "\n## Enums\n"
        for name, enum in sorted(self._all.enums.items()):
            if _ours(name):
                yield from self._enum(name, enum)

    def _service(self, name: str) -> Iterator[str]:
        yield f"\n### {_short(name)}\n\n{self._comment(name)}\n"
        for method in self._all.services[name].method:
            full = f"{name}.{method.name}"
            yield f"\n### {_short(full)}\n\n{self._call(method)}\n\n{self._comment(full)}\n"

    def _call(self, method: MethodDescriptorProto) -> str:
        asked = ("stream of " if method.client_streaming else "") + self._type(method.input_type)
        told = ("stream of " if method.server_streaming else "") + self._type(method.output_type)
        paths = [f"`{verb.upper()} {path}`" for verb, path, _ in bindings(method)]
        return "  \n".join([*paths, f"{asked} → {told}"])

    def _message(self, name: str, message: DescriptorProto) -> Iterator[str]:
        yield f"\n### {_short(name)}\n"
        if comment := self._comment(name):
            yield f"\n{comment}\n"
        if message.field:
            rows = (self._field(name, message, each) for each in message.field)
            yield "\n| field | type | |\n|---|---|---|\n" + "\n".join(rows) + "\n"
        else:
            yield "\nIt has no fields.\n"

    def _field(self, name: str, message: DescriptorProto, field: FieldDescriptorProto) -> str:
        of_several = field.HasField("oneof_index") and not field.proto3_optional
        oneof = f" (one of `{message.oneof_decl[field.oneof_index].name}`)" if of_several else ""
        comment = self._comment(f"{name}.{field.name}")
        return _row(f"`{field.name}`", self._field_type(field) + oneof, comment)

    def _field_type(self, field: FieldDescriptorProto) -> str:
        if field.type_name:
            entry = self._all.messages.get(field.type_name.removeprefix("."))
            if entry is not None and entry.options.map_entry:
                return f"map of {' to '.join(map(self._field_type, entry.field))}"
            kind = self._type(field.type_name)
        else:
            kind = FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()
        if field.label == FieldDescriptorProto.LABEL_REPEATED:
            return f"list of {kind}"
        return f"optional {kind}" if field.proto3_optional else kind

    def _enum(self, name: str, enum: EnumDescriptorProto) -> Iterator[str]:
        yield f"\n### {_short(name)}\n"
        if comment := self._comment(name):
            yield f"\n{comment}\n"
        rows = (
            _row(f"`{value.name}`", str(value.number), self._comment(f"{name}.{value.name}"))
            for value in enum.value
        )
        yield "\n| value | number | |\n|---|---|---|\n" + "\n".join(rows) + "\n"

    def _comment(self, name: str) -> str:
        return self._all.comments.get(name, "")

    @staticmethod
    def _type(name: str) -> str:
        name = name.removeprefix(".")
        if not _ours(name):
            return f"`{name}`"
        return f"[{_short(name)}](#{re.sub(r'[^a-z0-9]', '', _short(name).lower())})"


def _ours(name: str) -> bool:
    return name.startswith(PREFIX)


def _short(name: str) -> str:
    return name.removeprefix(PREFIX)


def _variable(settings: type[BaseSettings], name: str) -> str:
    return f"{settings.model_config.get('env_prefix', '')}{name}".upper()


def _default(field: FieldInfo) -> str:
    if field.default is PydanticUndefined:
        return "*required*"
    if field.default in ("", ()):
        return "empty"
    if isinstance(field.default, tuple):
        return f"`{','.join(field.default)}`"
    if isinstance(field.default, float) and field.default.is_integer():
        return f"`{int(field.default)}`"
    return f"`{field.default}`"


def _first_line(documented: type) -> str:
    text = re.sub(r"\s+", " ", inspect.getdoc(documented) or "").strip()
    return text.removesuffix(".")


def _row(*cells: str) -> str:
    return "| " + " | ".join(re.sub(r"\s+", " ", cell).strip() for cell in cells) + " |"


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--out", type=Path, default=HERE, help="write into this folder")
    generate(parser.parse_args().out)
