"""What Envoy answers where no service did, in the shape that every error has.

A status of Envoy's own becomes `google.rpc.Status` with an `ErrorInfo`, over gRPC
and over HTTP. `docs/reference/http.md` lists them.
"""

import base64
from dataclasses import dataclass
from typing import Any

from google.protobuf.any_pb2 import Any as AnyMessage
from google.rpc import code_pb2, error_details_pb2, status_pb2

from faas.v1 import error_reason_pb2 as reasons

ERROR_DOMAIN = "faas-mesh"


@dataclass(frozen=True)
class Reply:
    """Of one HTTP status: the code in the JSON body, gRPC's, the reason, what is said.

    Without a `message` it is Envoy's own, which then tells what is wrong. Over gRPC the
    message is in the details as well, so there it is `grpc_message`, which is fixed.
    """

    status: int
    code: int
    reason: str
    grpc_code: int
    message: str = ""
    grpc_message: str = ""

    @property
    def status_details(self) -> str:
        """The `grpc-status-details-bin` of it."""
        return _status_details(self.grpc_code, self.reason, self.grpc_message)

    def to_json(self, message: str) -> dict[str, Any]:
        """The body, as Envoy prints it too."""
        info = {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": self.reason,
            "domain": ERROR_DOMAIN,
            "metadata": {},
        }
        return {"code": self.code, "message": message, "details": [info]}


def _reply(
    status: int,
    code: int,
    reason: reasons.ErrorReason.ValueType,
    *,
    grpc_code: int | None = None,
    message: str = "",
    grpc_message: str = "The gateway refused the call.",
) -> Reply:
    grpc_code = code if grpc_code is None else grpc_code
    name = reasons.ErrorReason.Name(reason)
    return Reply(status, code, name, grpc_code, message, message or grpc_message)


def _status_details(code: int, reason: str, message: str) -> str:
    packed = AnyMessage()
    packed.Pack(error_details_pb2.ErrorInfo(reason=reason, domain=ERROR_DOMAIN))
    status = status_pb2.Status(code=code, message=message, details=[packed])
    return base64.b64encode(status.SerializeToString()).decode().rstrip("=")


# A gRPC client that names an unknown service expects UNIMPLEMENTED.
UNKNOWN_PATH = _reply(
    404,
    code_pb2.NOT_FOUND,
    reasons.UNKNOWN_PATH,
    grpc_code=code_pb2.UNIMPLEMENTED,
    grpc_message="There is no such service.",
)
OTHER = _reply(500, code_pb2.INTERNAL, reasons.INTERNAL_ERROR)


def replies(
    *,
    json_limit_bytes: int,
    upload_limit_bytes: int,
    call_limit_bytes: int,
    headers_limit_kb: int,
) -> tuple[Reply, ...]:
    """Of every status that Envoy answers with by itself."""
    return (
        UNKNOWN_PATH,
        _reply(400, code_pb2.INVALID_ARGUMENT, reasons.MALFORMED_REQUEST),
        _reply(
            403,
            code_pb2.PERMISSION_DENIED,
            reasons.ORIGIN_NOT_ALLOWED,
            message="Pages of this Origin may not call the API. Allow them with"
            " FAAS_GATEWAY_ALLOWED_ORIGINS.",
        ),
        _reply(
            408,
            code_pb2.DEADLINE_EXCEEDED,
            reasons.TOO_SLOW,
            message="The request did not arrive in time.",
        ),
        _reply(
            413,
            code_pb2.RESOURCE_EXHAUSTED,
            reasons.TOO_LARGE,
            message=f"A JSON body may be at most {json_limit_bytes} bytes. "
            f"Code up to {upload_limit_bytes} bytes goes to /uploads, a payload up to "
            f"{call_limit_bytes} bytes to /functions/{{function_id}}:call.",
        ),
        _reply(415, code_pb2.INVALID_ARGUMENT, reasons.UNSUPPORTED_CONTENT_TYPE),
        _reply(
            421,
            code_pb2.PERMISSION_DENIED,
            reasons.HOST_NOT_ALLOWED,
            message="This Host is not served here. Allow it with FAAS_GATEWAY_ALLOWED_HOSTS.",
        ),
        _reply(
            431,
            code_pb2.RESOURCE_EXHAUSTED,
            reasons.TOO_LARGE,
            message=f"The headers may be at most {headers_limit_kb} KiB and 100 together.",
        ),
        _reply(503, code_pb2.UNAVAILABLE, reasons.DEPENDENCY_UNAVAILABLE),
        _reply(504, code_pb2.DEADLINE_EXCEEDED, reasons.TOO_SLOW),
    )


@dataclass(frozen=True)
class Refusal:
    """Of one kind of request that Envoy refuses without a word, by its name for it."""

    details: str
    reply: Reply


_MALFORMED = reasons.MALFORMED_REQUEST

REFUSALS = (
    Refusal(
        "path_normalization_failed",
        _reply(
            400,
            code_pb2.INVALID_ARGUMENT,
            _MALFORMED,
            message="The path has an escaped slash or NUL in it, which no name here has.",
        ),
    ),
    Refusal(
        "upgrade_failed",
        _reply(
            400,
            code_pb2.INVALID_ARGUMENT,
            _MALFORMED,
            message="No upgrade of the connection is offered here.",
        ),
    ),
    Refusal(
        "low_version",
        _reply(
            426,
            code_pb2.INVALID_ARGUMENT,
            _MALFORMED,
            message="HTTP/1.1 or HTTP/2 is needed.",
        ),
    ),
)


@dataclass(frozen=True)
class UpstreamFailure:
    """A call that a service did not answer: Envoy's flags for it, and what is said.

    Envoy's own text is not passed on: it tells addresses.
    """

    flags: tuple[str, ...]
    code: int
    reason: str
    message: str

    @property
    def status_details(self) -> str:
        """The `grpc-status-details-bin` of it."""
        return _status_details(self.code, self.reason, self.message)


_UNAVAILABLE = reasons.ErrorReason.Name(reasons.DEPENDENCY_UNAVAILABLE)

UPSTREAM_FAILURES = (
    UpstreamFailure(
        # no connection, no healthy host, too many requests under way, overload
        ("UF", "UH", "UO", "NC", "OM"),
        code_pb2.UNAVAILABLE,
        _UNAVAILABLE,
        "The service does not answer. Nothing was changed; try again.",
    ),
    UpstreamFailure(
        # the connection broke, or the service reset the call
        ("UC", "UR", "LR"),
        code_pb2.UNAVAILABLE,
        reasons.ErrorReason.Name(reasons.OUTCOME_UNKNOWN),
        "The service was lost during the call: whether it did it is not known. Look, or try again.",
    ),
    UpstreamFailure(
        ("UT", "SI"),
        code_pb2.DEADLINE_EXCEEDED,
        reasons.ErrorReason.Name(reasons.TOO_SLOW),
        "The service did not answer in time.",
    ),
)
