"""HTTP bindings of the protos' methods as OpenAPI operations."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from google.api import annotations_pb2
from google.protobuf.descriptor_pb2 import MethodDescriptorProto

from services.gateway.descriptors import Descriptors
from services.gateway.rules import Schema, refuses_absent
from services.gateway.schemas import PREFIX, Schemas

HTTP_BODY = "google.api.HttpBody"
RAW_TYPES = ("application/zip", "application/gzip", "application/octet-stream")
# No schema would say as much to people; generators of clients leave out what has none.
RAW: Schema = {"type": "string", "format": "binary"}
STATUS: Schema = {"$ref": "#/components/schemas/Status"}


def json_response(description: str, schema: Schema) -> dict[str, Any]:
    """A response whose body is JSON."""
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def bindings(method: MethodDescriptorProto) -> Iterator[tuple[str, str, str]]:
    """Its HTTP bindings: method in lower case, path, and the field that is the body."""
    rule = method.options.Extensions[annotations_pb2.http]
    for each in (rule, *rule.additional_bindings):
        verb = each.WhichOneof("pattern")
        if verb and verb != "custom":
            yield verb, getattr(each, verb), each.body


class Errors:
    """What the reasons in a method's comment mean over HTTP."""

    def __init__(self, descriptors: Descriptors) -> None:
        reasons = descriptors.enums[f"{PREFIX}ErrorReason"].value
        comments = {
            r.name: descriptors.comments.get(f"{PREFIX}ErrorReason.{r.name}", "") for r in reasons
        }
        self._comments = {name: text for name, text in comments.items() if "HTTP" in text}

    def responses(self, comment: str) -> dict[str, Any]:
        """Responses by status, for the reasons that a comment names; and any other."""
        _, _, listed = comment.partition("Errors:")
        by_status: dict[str, list[str]] = {}
        for name in re.findall(r"[A-Z][A-Z_]+", listed):
            if text := self._comments.get(name):
                status = re.findall(r"HTTP (\d{3})", text)[0]
                meaning = re.sub(r"\s*[A-Z_]+, HTTP.*$", "", text)
                by_status.setdefault(status, []).append(f"`{name}`: {meaning}")
        answers = {
            status: json_response("\n\n".join(lines), STATUS)
            for status, lines in sorted(by_status.items())
        }
        return answers | {"default": {"$ref": "#/components/responses/Error"}}


@dataclass(frozen=True)
class Operation:
    """One HTTP binding of one method."""

    descriptors: Descriptors
    schemas: Schemas
    errors: Errors
    service: str
    method: MethodDescriptorProto
    path: str
    body: str
    """The field that is the body, `*` for all that are not in the path, or none."""

    @property
    def input(self) -> str:
        """The request's full name."""
        return self.method.input_type.removeprefix(".")

    @property
    def output(self) -> str:
        """The response's full name."""
        return self.method.output_type.removeprefix(".")

    @property
    def in_path(self) -> list[str]:
        """Fields of the request that are in the path."""
        return re.findall(r"{(\w+)", self.path)

    def describe(self, index: int) -> dict[str, Any]:
        """The operation object; `index` counts the bindings of the method."""
        name = self.method.name
        comment = self.descriptors.comments.get(f"{self.service}.{name}", "")
        operation: dict[str, Any] = {
            "operationId": name if index == 0 else f"{name}{index + 1}",
            "tags": [self.service.removeprefix(PREFIX)],
            "summary": re.split(r"(?<=[.:]) ", comment, maxsplit=1)[0].rstrip(".:"),
            "description": comment,
        }
        if parameters := list(self._parameters()):
            operation["parameters"] = parameters
        if self.body:
            operation["requestBody"] = self._request_body()
        return operation | {"responses": {"200": self._answer()} | self.errors.responses(comment)}

    def _parameters(self) -> Iterator[dict[str, Any]]:
        for field in self.descriptors.messages[self.input].field:
            in_path = field.name in self.in_path
            if self.body and not in_path:
                continue
            schema = self.schemas.field(self.input, field)
            parameter = {
                "name": field.name,
                "in": "path" if in_path else "query",
                "required": in_path or refuses_absent(field),
            }
            if "description" in schema:
                parameter["description"] = schema.pop("description")
            yield {**parameter, "schema": schema}

    def _request_body(self) -> dict[str, Any]:
        if self.body != "*":
            field = next(
                f for f in self.descriptors.messages[self.input].field if f.name == self.body
            )
            if field.type_name == f".{HTTP_BODY}":
                return {
                    "required": True,
                    "description": "The raw bytes, of any content type.",
                    "content": {kind: {"schema": RAW} for kind in RAW_TYPES},
                }
            schema = self.schemas.field(self.input, field)
        else:
            schema = self.schemas.body(self.input, without=self.in_path)
        return {"required": True, "content": {"application/json": {"schema": schema}}}

    def _answer(self) -> dict[str, Any]:
        if self.output == HTTP_BODY:
            content = {kind: {"schema": RAW} for kind in RAW_TYPES}
            return {"description": "The raw bytes.", "content": content}
        schema = self.schemas.message(self.output)
        if not self.method.server_streaming:
            return json_response("Done.", schema)
        text = f"Events, each with one `{self.output.removeprefix(PREFIX)}` as JSON in `data:`."
        return {
            "description": text,
            "content": {"text/event-stream": {"schema": {"type": "string"}, "x-event": schema}},
        }
