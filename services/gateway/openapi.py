"""The OpenAPI document, from the same descriptors that Envoy transcodes by.

`make protos` writes it to `openapi.json`; the gateway serves that file. Comments of
the protos are its descriptions.
"""

import json
from typing import Any

from services.gateway.descriptors import Descriptors
from services.gateway.operations import STATUS, Errors, Operation, bindings, json_response
from services.gateway.public import PUBLIC_SERVICES
from services.gateway.rules import Schema
from services.gateway.schemas import PREFIX, Schemas

_ABOUT = """\
Functions, invoked over HTTP and gRPC alike: this document is made from the protos \
that are the contract, and lists what the gateway makes of them.

Names are the protos'. Default values are printed; what is absent has none. 64-bit \
integers are strings, durations are seconds with an `s` (`"1.5s"`), unknown fields of a \
body are ignored, unknown query parameters refused. A JSON body may be 1 MiB of payload \
plus 64 KiB and needs `Content-Type: application/json`. Every error has one shape: `Status`."""


def document(descriptor_set: bytes) -> dict[str, Any]:
    """The whole document."""
    descriptors = Descriptors.parse(descriptor_set)
    schemas = Schemas(descriptors)
    errors = Errors(descriptors)
    schemas.enum(f"{PREFIX}ErrorReason")
    paths: dict[str, dict[str, Any]] = {}
    for service in PUBLIC_SERVICES:
        for method in descriptors.services[service].method:
            for index, (verb, path, body) in enumerate(bindings(method)):
                operation = Operation(descriptors, schemas, errors, service, method, path, body)
                paths.setdefault(path, {})[verb] = operation.describe(index)
    paths |= _OWN_PATHS
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "faas-mesh",
            "version": "v1",
            "description": _ABOUT,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "tags": [
            {"name": s.removeprefix(PREFIX), "description": descriptors.comments.get(s, "")}
            for s in PUBLIC_SERVICES
        ],
        "paths": paths,
        "components": {
            "schemas": dict(sorted((schemas.components | _OWN_SCHEMAS).items())),
            "responses": {"Error": json_response("It was refused.", STATUS)},
        },
    }


def dump(descriptor_set: bytes) -> str:
    """The document as it is checked in."""
    return json.dumps(document(descriptor_set), indent=1, ensure_ascii=False) + "\n"


_OWN_SCHEMAS: dict[str, Schema] = {
    "Status": {
        "description": "`google.rpc.Status`: the shape of every error.",
        "type": "object",
        "required": ["code", "message", "details"],
        "properties": {
            "code": {"type": "integer", "description": "gRPC's code: 5 is NOT_FOUND."},
            "message": {"type": "string", "description": "For people; it may change."},
            "details": {
                "type": "array",
                "items": {
                    "anyOf": [
                        {"$ref": "#/components/schemas/ErrorInfo"},
                        {"$ref": "#/components/schemas/BadRequest"},
                    ]
                },
            },
        },
    },
    "ErrorInfo": {
        "description": "`google.rpc.ErrorInfo`: the first of the details.",
        "type": "object",
        "required": ["@type", "reason", "domain", "metadata"],
        "properties": {
            "@type": {"const": "type.googleapis.com/google.rpc.ErrorInfo"},
            "reason": {"$ref": "#/components/schemas/ErrorReason"},
            "domain": {"const": "faas-mesh"},
            "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
        },
    },
    "BadRequest": {
        "description": "`google.rpc.BadRequest`: which fields are wrong, and why.",
        "type": "object",
        "required": ["@type", "field_violations"],
        "properties": {
            "@type": {"const": "type.googleapis.com/google.rpc.BadRequest"},
            "field_violations": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["field", "description", "reason"],
                    "properties": {
                        "field": {"type": "string"},
                        "description": {"type": "string"},
                        "reason": {"$ref": "#/components/schemas/ErrorReason"},
                    },
                },
            },
        },
    },
    "Health": {
        "description": "What every part answers, now.",
        "type": "object",
        "required": ["status", "parts"],
        "properties": {
            "status": {"enum": ["SERVING", "NOT_SERVING"]},
            "parts": {
                "type": "array",
                "items": {
                    "type": "object",
                    "required": ["name", "status", "latency_ms"],
                    "properties": {
                        "name": {"type": "string"},
                        "status": {"enum": ["SERVING", "NOT_SERVING"]},
                        "latency_ms": {"type": "number"},
                        "detail": {"type": "string"},
                    },
                },
            },
        },
    },
}

_HEALTH: Schema = {"$ref": "#/components/schemas/Health"}

# What the gateway answers itself, beside the protos.
_OWN_PATHS: dict[str, dict[str, Any]] = {
    "/health": {
        "get": {
            "operationId": "GetHealth",
            "summary": "Whether a call can be made and will be run",
            "description": "SERVING if every part is, at least one worker among them.",
            "responses": {
                "200": json_response("All parts serve.", _HEALTH),
                "503": json_response("A part does not serve.", _HEALTH),
            },
        }
    },
    "/openapi.json": {
        "get": {
            "operationId": "GetOpenApi",
            "summary": "This document",
            "responses": {"200": json_response("An OpenAPI 3.1 document.", {"type": "object"})},
        }
    },
}
