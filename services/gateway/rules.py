"""Rules of protovalidate as JSON Schema, where it has a word for them.

What it has none for stays out: the server's answer names such a rule anyway.
"""

import re
from collections.abc import Iterable
from typing import Any

import faas.v1  # noqa: F401 - puts buf.validate on the path

# isort: split
from buf.validate import validate_pb2
from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto
from google.protobuf.duration_pb2 import Duration

Schema = dict[str, Any]

# The forms of CEL that our protos use, joined by `&&`.
_MATCHES = re.compile(r"(!?)this\.matches\('((?:[^'\\]|\\.)*)'\)")
_NOT_STARTING = re.compile(r"!this\.startsWith\('([^']*)'\)")
_SIZE = re.compile(r"size\(this\) <= (\d+)")
_NUMBERS = ("int32", "int64", "uint32", "uint64", "float", "double")


def of_field(field: FieldDescriptorProto) -> validate_pb2.FieldRules:
    """The rules of one field."""
    return field.options.Extensions[validate_pb2.field]


def constraints(rules: validate_pb2.FieldRules) -> Schema:
    """Keywords for the schema of a field with these rules."""
    schema = _cel(rules.cel)
    kind = rules.WhichOneof("type")
    if kind == "string":
        schema |= _given(rules.string, min_len="minLength", max_len="maxLength", pattern="pattern")
        if rules.string.HasField("max_bytes"):
            # Never fewer bytes than characters.
            schema.setdefault("maxLength", rules.string.max_bytes)
    elif kind == "bytes":
        lengths = _given(rules.bytes, min_len="minLength", max_len="maxLength")
        schema |= {keyword: -(-n // 3) * 4 for keyword, n in lengths.items()}  # in base64
    elif kind in _NUMBERS:
        number = getattr(rules, kind)
        schema |= _given(
            number, gte="minimum", lte="maximum", gt="exclusiveMinimum", lt="exclusiveMaximum"
        )
    elif kind == "repeated":
        schema |= _given(rules.repeated, min_items="minItems", max_items="maxItems")
    elif kind == "map":
        schema |= _given(rules.map, min_pairs="minProperties", max_pairs="maxProperties")
    return schema


def bounds(rules: validate_pb2.FieldRules) -> str:
    """What a duration may be, in words: JSON Schema has none for it."""
    if rules.WhichOneof("type") != "duration":
        return ""
    given: dict[str, Duration] = _given(rules.duration, gte="at least", lte="at most")
    return ", ".join(f"{word} {bound.ToJsonString()}" for word, bound in given.items()).capitalize()


def refuses_absent(field: FieldDescriptorProto) -> bool:
    """Whether a request without the field breaks its rules."""
    rules = of_field(field)
    if rules.required:
        return True
    if field.proto3_optional or field.HasField("oneof_index"):
        return False
    if rules.ignore == validate_pb2.IGNORE_IF_ZERO_VALUE:
        return False
    schema = constraints(rules)
    if field.type == field.TYPE_STRING:
        pattern = schema.get("pattern")
        empty_matches = pattern is None or re.search(pattern, "") is not None
        return schema.get("minLength", 0) > 0 or not empty_matches
    return bool(schema.get("minimum", 0) > 0)


def required_oneofs(message: DescriptorProto) -> list[list[str]]:
    """Groups of fields of which exactly one must be there."""
    groups = []
    for index, oneof in enumerate(message.oneof_decl):
        if oneof.options.Extensions[validate_pb2.oneof].required:
            members = [f.name for f in message.field if _in_oneof(f, index)]
            groups.append(members)
    return groups


def _in_oneof(field: FieldDescriptorProto, index: int) -> bool:
    return field.HasField("oneof_index") and field.oneof_index == index


def _cel(rules: Iterable[validate_pb2.Rule]) -> Schema:
    schema: Schema = {}
    forbidden: list[Schema] = []
    for rule in rules:
        for negated, pattern in _MATCHES.findall(rule.expression):
            if negated:
                forbidden.append({"pattern": pattern})
            else:
                schema["pattern"] = pattern
        forbidden += [{"pattern": f"^{p}"} for p in _NOT_STARTING.findall(rule.expression)]
        for size in _SIZE.findall(rule.expression):
            schema["maxLength"] = int(size)
    if len(forbidden) == 1:
        schema["not"] = forbidden[0]
    elif forbidden:
        schema["not"] = {"anyOf": forbidden}
    return schema


def _given(rules: Any, **keywords: str) -> Schema:
    """The keywords of the rules that are set."""
    return {k: getattr(rules, name) for name, k in keywords.items() if rules.HasField(name)}
