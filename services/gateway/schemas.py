"""Messages as JSON Schema, the way that Envoy reads and prints them.

Proto field names, enums by name, 64-bit integers as strings, default values
printed; the well-known types as protobuf's JSON mapping has them.
"""

from collections.abc import Collection

from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field

from services.gateway import rules
from services.gateway.descriptors import Descriptors
from services.gateway.rules import Schema

PREFIX = "faas.v1."

_INT64: Schema = {"type": "string", "format": "int64", "pattern": "^-?[0-9]+$"}
_UINT64: Schema = {"type": "string", "format": "uint64", "pattern": "^[0-9]+$"}
_INT32: Schema = {"type": "integer", "format": "int32"}
_SCALARS: dict[int, Schema] = {
    Field.TYPE_DOUBLE: {"type": "number", "format": "double"},
    Field.TYPE_FLOAT: {"type": "number", "format": "float"},
    Field.TYPE_INT64: _INT64,
    Field.TYPE_UINT64: _UINT64,
    Field.TYPE_INT32: _INT32,
    Field.TYPE_UINT32: {"type": "integer", "format": "int64", "minimum": 0},
    Field.TYPE_BOOL: {"type": "boolean"},
    Field.TYPE_STRING: {"type": "string"},
    Field.TYPE_BYTES: {"type": "string", "contentEncoding": "base64"},
}
_WELL_KNOWN: dict[str, Schema] = {
    "google.protobuf.Value": {"description": "Any JSON value."},
    "google.protobuf.Struct": {"type": "object"},
    "google.protobuf.Empty": {"type": "object", "maxProperties": 0},
    "google.protobuf.Timestamp": {"type": "string", "format": "date-time"},
    "google.protobuf.Duration": {
        "type": "string",
        "pattern": r"^-?[0-9]+(\.[0-9]{1,9})?s$",
        "examples": ["1.5s"],
    },
    "google.protobuf.FieldMask": {
        "type": "string",
        "examples": ["description,env"],
    },
}


class Schemas:
    """Schemas of messages and enums; what refers to them is below `components`."""

    def __init__(self, descriptors: Descriptors) -> None:
        self._descriptors = descriptors
        self.components: dict[str, Schema] = {}

    def message(self, name: str, *, answered: bool = True) -> Schema:
        """The schema of a message: a reference, unless it is well known.

        `answered`: it is printed, and then what is always printed is required.
        """
        if name in _WELL_KNOWN:
            return dict(_WELL_KNOWN[name])
        key = name.removeprefix(PREFIX)
        if key not in self.components:
            self.components[key] = {}  # taken, before what may refer back to it
            self.components[key] = self._object(name, answered=answered)
        return {"$ref": f"#/components/schemas/{key}"}

    def body(self, name: str, *, without: Collection[str]) -> Schema:
        """The schema of a request's body: the message less the fields in its path."""
        key = name.removeprefix(PREFIX)
        self.components[key] = self._object(name, answered=False, without=without)
        return {"$ref": f"#/components/schemas/{key}"}

    def enum(self, name: str) -> Schema:
        """A reference to the schema of an enum: its names, each with its meaning."""
        key = name.removeprefix(PREFIX)
        if key not in self.components:
            enum, comments = self._descriptors.enums[name], self._descriptors.comments
            values = [value.name for value in enum.value]
            meanings = [(v, comments.get(f"{name}.{v}", "")) for v in values]
            lines = [f"- `{value}`: {text}" for value, text in meanings if text]
            description = "\n".join(filter(None, [comments.get(name, ""), "", *lines]))
            self.components[key] = {"type": "string", "enum": values, "description": description}
        return {"$ref": f"#/components/schemas/{key}"}

    def field(self, owner: str, field: Field, *, answered: bool = False) -> Schema:
        """The schema of one field, with its comment."""
        schema = self._repeated(owner, field, answered)
        comment = self._descriptors.comments.get(f"{owner}.{field.name}", "")
        bounds = rules.bounds(rules.of_field(field))
        description = " ".join(filter(None, [comment, bounds and f"{bounds}."]))
        return {**schema, "description": description} if description else schema

    def _object(self, name: str, *, answered: bool, without: Collection[str] = ()) -> Schema:
        message = self._descriptors.messages[name]
        fields = [field for field in message.field if field.name not in without]
        schema: Schema = {
            "type": "object",
            "properties": {f.name: self.field(name, f, answered=answered) for f in fields},
        }
        if comment := self._descriptors.comments.get(name):
            schema["description"] = comment
        required = [f.name for f in fields if _always_there(f, answered=answered)]
        if required:
            schema["required"] = required
        choices = [] if answered else rules.required_oneofs(message)
        if choices:
            schema["allOf"] = [{"oneOf": [{"required": [n]} for n in names]} for names in choices]
        return schema

    def _repeated(self, owner: str, field: Field, answered: bool) -> Schema:
        given = rules.of_field(field)
        if field.label != Field.LABEL_REPEATED:
            return self._single(field, answered) | rules.constraints(given)
        entry = self._descriptors.messages.get(field.type_name.removeprefix("."))
        if entry is None or not entry.options.map_entry:
            each = self._single(field, answered) | rules.constraints(given.repeated.items)
            return {"type": "array", "items": each} | rules.constraints(given)
        _, value = entry.field
        names = rules.constraints(given.map.keys)
        each = self._single(value, answered) | rules.constraints(given.map.values)
        schema: Schema = {"type": "object", "additionalProperties": each}
        if names:
            schema["propertyNames"] = names
        return schema | rules.constraints(given)

    def _single(self, field: Field, answered: bool) -> Schema:
        name = field.type_name.removeprefix(".")
        if field.type == Field.TYPE_MESSAGE:
            return self.message(name, answered=answered)
        if field.type == Field.TYPE_ENUM:
            return self.enum(name)
        return dict(_SCALARS[field.type])


def _always_there(field: Field, *, answered: bool) -> bool:
    """Whether the field must be sent, or is always printed."""
    if not answered:
        return rules.refuses_absent(field)
    if field.label == Field.LABEL_REPEATED:
        return True
    return not (
        field.type == Field.TYPE_MESSAGE or field.proto3_optional or field.HasField("oneof_index")
    )
