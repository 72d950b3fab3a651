"""Rows as messages."""

from datetime import datetime
from uuid import UUID

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from faas.v1.function_pb2 import CodeFormat, Function, FunctionVersion, RetryPolicy, Upload
from services import ids
from services.functions.builds import State
from services.functions.keys import UPLOAD
from services.functions.tables import FunctionRow, UploadRow, VersionRow
from services.retries import policy_to_proto

CONTENT_TYPES = {
    CodeFormat.CODE_FORMAT_TEXT: "text/plain; charset=utf-8",
    CodeFormat.CODE_FORMAT_ZIP: "application/zip",
    CodeFormat.CODE_FORMAT_TAR_GZ: "application/gzip",
}


def function_to_proto(function: FunctionRow, version: VersionRow, state: State) -> Function:
    """A function with its latest version, and whether that can run."""
    return Function(
        id=ids.show(ids.FUNCTION, function.id),
        name=function.name,
        description=function.description,
        runtime=version.runtime,
        handler=version.handler,
        memory_mb=version.memory_mb,
        cpus=version.cpus,
        timeout=_duration(version.timeout_ms),
        env=version.env,
        labels=function.labels,
        version=function.version,
        code_sha256=version.code_sha256,
        code_size_bytes=version.code_size_bytes,
        created_at=_timestamp(function.created_at),
        updated_at=_timestamp(function.updated_at),
        etag=show_etag(function.etag),
        retry_policy=retry_policy(function),
        max_age=max_age(function),
        max_concurrency=function.max_concurrency or 0,
        min_warm=function.min_warm or 0,
        sandbox=sandbox_of(version.sandbox),
        state=state.state,
        state_reason=state.reason,
    )


def retry_policy(function: FunctionRow) -> RetryPolicy | None:
    """When its failed invocations are started again; None: never."""
    return None if function.retry_policy is None else policy_to_proto(function.retry_policy)


def max_age(function: FunctionRow) -> Duration | None:
    """How long an invocation may wait for its start; None: the default."""
    return None if function.max_age_ms is None else _duration(function.max_age_ms)


def version_to_proto(version: VersionRow, state: State | None = None) -> FunctionVersion:
    """One version; for who may keep it for good, without its state."""
    shown = _immutable(version)
    if state is not None:
        shown.state, shown.state_reason = state.state, state.reason
    return shown


def _immutable(version: VersionRow) -> FunctionVersion:
    return FunctionVersion(
        function_id=ids.show(ids.FUNCTION, version.function_id),
        version=version.version,
        runtime=version.runtime,
        handler=version.handler,
        memory_mb=version.memory_mb,
        cpus=version.cpus,
        timeout=_duration(version.timeout_ms),
        env=version.env,
        code_format=format_of(version.code_format),
        code_sha256=version.code_sha256,
        code_size_bytes=version.code_size_bytes,
        created_at=_timestamp(version.created_at),
        sandbox=sandbox_of(version.sandbox),
    )


def upload_to_proto(upload: UploadRow) -> Upload:
    """An upload."""
    return Upload(
        id=ids.show(UPLOAD, upload.id),
        size_bytes=upload.size_bytes,
        sha256=upload.sha256,
        format=format_of(upload.code_format),
        expires_at=_timestamp(upload.expires_at),
    )


def show_etag(etag: UUID) -> str:
    """An etag as callers see it: opaque."""
    return etag.hex


def sandbox_name(sandbox: FunctionVersion.Sandbox.ValueType) -> str | None:
    """A kind of sandbox as tables have it: `warm`, `one_shot`; None: as workers are set."""
    return FunctionVersion.Sandbox.Name(sandbox).lower() if sandbox else None


def sandbox_of(name: str | None) -> FunctionVersion.Sandbox.ValueType:
    """The kind of which `sandbox_name` made `name`."""
    return FunctionVersion.Sandbox.Value(name.upper() if name else "SANDBOX_UNSPECIFIED")


def format_name(code_format: CodeFormat.ValueType) -> str:
    """A format as tables have it: `text`, `zip`, `tar_gz`."""
    return CodeFormat.Name(code_format).removeprefix("CODE_FORMAT_").lower()


def format_of(name: str) -> CodeFormat.ValueType:
    """The format of which `format_name` made `name`."""
    return CodeFormat.Value(f"CODE_FORMAT_{name.upper()}")


def _duration(milliseconds: int) -> Duration:
    duration = Duration()
    duration.FromMilliseconds(milliseconds)
    return duration


def _timestamp(moment: datetime) -> Timestamp:
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
