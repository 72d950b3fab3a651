"""The descriptor set of the protos: its types by name, and their comments."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FileDescriptorProto,
    FileDescriptorSet,
    ServiceDescriptorProto,
)

# Numbers of the fields that make up a path in SourceCodeInfo (descriptor.proto).
_FILE_MESSAGES, _FILE_ENUMS, _FILE_SERVICES = 4, 5, 6
_MESSAGE_FIELDS, _MESSAGE_NESTED, _MESSAGE_ENUMS = 2, 3, 4
_ENUM_VALUES, _SERVICE_METHODS = 2, 2


@dataclass
class Descriptors:
    """Types by full name (`faas.v1.Function`), comments by name of what they describe.

    Fields, enum values and methods are named below their owner:
    `faas.v1.Function.name`, `faas.v1.FunctionService.GetFunction`.
    """

    messages: dict[str, DescriptorProto] = field(default_factory=dict)
    enums: dict[str, EnumDescriptorProto] = field(default_factory=dict)
    services: dict[str, ServiceDescriptorProto] = field(default_factory=dict)
    comments: dict[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, descriptor_set: bytes) -> "Descriptors":
        """Read a set that was made with `--include_imports --include_source_info`."""
        found = cls()
        for file in FileDescriptorSet.FromString(descriptor_set).file:
            found._add_file(file)
        return found

    def _add_file(self, file: FileDescriptorProto) -> None:
        names = dict(self._names(file))
        for location in file.source_code_info.location:
            name = names.get(tuple(location.path))
            if name and location.leading_comments:
                self.comments[name] = _clean(location.leading_comments)

    def _names(self, file: FileDescriptorProto) -> Iterator[tuple[tuple[int, ...], str]]:
        """Every type of the file, entered here, as (path, name)."""
        for i, message in enumerate(file.message_type):
            yield from self._add_message(message, file.package, (_FILE_MESSAGES, i))
        for i, enum in enumerate(file.enum_type):
            yield from self._add_enum(enum, file.package, (_FILE_ENUMS, i))
        for i, service in enumerate(file.service):
            name, path = f"{file.package}.{service.name}", (_FILE_SERVICES, i)
            self.services[name] = service
            yield path, name
            for j, method in enumerate(service.method):
                yield (*path, _SERVICE_METHODS, j), f"{name}.{method.name}"

    def _add_message(
        self, message: DescriptorProto, scope: str, path: tuple[int, ...]
    ) -> Iterator[tuple[tuple[int, ...], str]]:
        name = f"{scope}.{message.name}"
        self.messages[name] = message
        yield path, name
        for i, each in enumerate(message.field):
            yield (*path, _MESSAGE_FIELDS, i), f"{name}.{each.name}"
        for i, nested in enumerate(message.nested_type):
            yield from self._add_message(nested, name, (*path, _MESSAGE_NESTED, i))
        for i, enum in enumerate(message.enum_type):
            yield from self._add_enum(enum, name, (*path, _MESSAGE_ENUMS, i))

    def _add_enum(
        self, enum: EnumDescriptorProto, scope: str, path: tuple[int, ...]
    ) -> Iterator[tuple[tuple[int, ...], str]]:
        name = f"{scope}.{enum.name}"
        self.enums[name] = enum
        yield path, name
        for i, value in enumerate(enum.value):
            yield (*path, _ENUM_VALUES, i), f"{name}.{value.name}"


def _clean(comment: str) -> str:
    """The comment as Markdown: lines of a paragraph joined, lists and blank lines kept."""
    paragraphs: list[str] = []
    for block in comment.strip().split("\n\n"):
        lines = [line.strip() for line in block.splitlines()]
        paragraphs.append(" ".join(lines))
    return "\n\n".join(paragraphs)
