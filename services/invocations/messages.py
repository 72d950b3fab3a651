"""Between the rows and the protos: one place for each noun."""

from datetime import datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Value
from google.protobuf.timestamp_pb2 import Timestamp

from faas.json_values import NotJson, check, from_json, is_json
from faas.v1.execution_pb2 import Directive, Report
from faas.v1.invocation_pb2 import Attempt as AttemptMessage
from faas.v1.invocation_pb2 import Invocation, InvocationEvent, LargeContent
from faas.v1.lane_pb2 import Lane as LaneMessage
from services import ids
from services.content_types import JSON, is_content_type
from services.invocations.attempts import Attempt
from services.invocations.blobs import Blob
from services.invocations.lanes import Lane
from services.invocations.records import Ending, Record
from services.invocations.watches import Event

_LINKS = {"replay_of": ids.INVOCATION, "schedule_id": ids.SCHEDULE}
_TOLD = ("assigned", "startup", "load", "run", "cpu_time")
_PHASES = ("duration", "queued", *_TOLD, "report")


def to_proto(record: Record, *, listed: bool = False) -> Invocation:
    """The record as the API shows it; `listed`: without payload and result."""
    shown = Invocation(
        id=ids.show(ids.INVOCATION, record.id),
        function_id=ids.show(ids.FUNCTION, record.function_id),
        function_name=record.function_name,
        function_version=record.function_version,
        status=Invocation.Status.Value(record.status.upper()),
        attempt=record.attempt,
        labels=record.labels,
        runtime_image=record.runtime_image or "",
        logs_truncated=record.logs_truncated,
        payload_type=record.payload_type,
        result_type=record.result_type or "",
        created_at=_timestamp(record.created_at),
        started_at=_timestamp(record.started_at),
        completed_at=_timestamp(record.completed_at),
        request_id=record.request_id or "",
    )
    if record.redrive_of is not None:
        shown.redrive_of = ids.show(ids.INVOCATION, record.redrive_of)
    for name, prefix in _LINKS.items():
        if (linked := getattr(record, name)) is not None:
            setattr(shown, name, ids.show(prefix, linked))
    if record.worker_id is not None:
        shown.worker_id = ids.show(ids.WORKER, record.worker_id)
    if record.error is not None:
        shown.error.CopyFrom(_error_to_proto(record.error))
    if record.metrics is not None:
        shown.metrics.CopyFrom(_metrics_to_proto(record.metrics))
    if record.status == "pending":
        shown.next_attempt_at.CopyFrom(_timestamp(record.due_at) or Timestamp())
    if record.payload_blob is not None:
        shown.large_payload.CopyFrom(_large(record.payload_blob))
    elif not listed:
        _show(shown.payload, record.payload, record.payload_type)
    if record.result_blob is not None:
        shown.large_result.CopyFrom(_large(record.result_blob))
    elif not listed:
        _show(shown.result, record.result, record.result_type)
    return shown


def _large(column: dict[str, Any]) -> LargeContent:
    return LargeContent(size_bytes=column["size_bytes"], sha256=column["sha256"])


def _show(field: Value, document: bytes | None, content_type: str | None) -> None:
    """Show in `field` what is JSON; bytes of other types are for the raw calls."""
    if document is not None and is_json(content_type or JSON):
        field.CopyFrom(from_json(document))


def event_to_proto(event: Event, *, cursor: str) -> InvocationEvent:
    """What a watcher is told, as the API shows it."""
    shown = InvocationEvent(lines=event.lines, cursor=cursor, last=event.last)
    if event.record is not None:
        shown.invocation.CopyFrom(to_proto(event.record, listed=True))
        _show(shown.invocation.result, event.record.result, event.record.result_type)
    return shown


def to_granted(record: Record) -> Directive.Granted:
    """The record as the worker that may start it is told."""
    large = None if record.payload_blob is None else _large(record.payload_blob)
    return Directive.Granted(
        large_payload=large,
        invocation_id=ids.show(ids.INVOCATION, record.id),
        grant_id=str(record.grant_id),
        attempt=record.attempt,
        function_id=ids.show(ids.FUNCTION, record.function_id),
        function_version=record.function_version,
        function_name=record.function_name,
        payload=record.payload,
        payload_type=record.payload_type,
        timeout=_duration(record.timeout_ms / 1000),
        alone=record.alone,
    )


def attempt_to_proto(attempt: Attempt) -> AttemptMessage:
    """A start that is over."""
    shown = AttemptMessage(
        attempt=attempt.attempt,
        outcome=AttemptMessage.Outcome.Value(attempt.outcome.upper()),
        worker_boot_id=str(attempt.worker_boot or ""),
        due_at=_timestamp(attempt.due_at),
        offered_at=_timestamp(attempt.offered_at),
        started_at=_timestamp(attempt.started_at),
        ended_at=_timestamp(attempt.ended_at),
        runtime_image=attempt.runtime_image or "",
    )
    if attempt.worker_id is not None:
        shown.worker_id = ids.show(ids.WORKER, attempt.worker_id)
    if attempt.error is not None:
        shown.error.CopyFrom(_error_to_proto(attempt.error))
    if attempt.metrics is not None:
        shown.metrics.CopyFrom(_metrics_to_proto(attempt.metrics))
    return shown


def lane_to_proto(lane: Lane) -> LaneMessage:
    """How a function's invocations are held back."""
    return LaneMessage(
        function_id=ids.show(ids.FUNCTION, lane.function_id),
        paused_at=_timestamp(lane.paused_at),
        max_concurrency=lane.max_concurrency or 0,
    )


def unstorable(reason: str) -> Ending:
    """The ending of what answered something that PostgreSQL does not take."""
    first, *_ = _storable(reason).splitlines() or [""]
    text = f"The result cannot be kept: {first}."
    return Ending("failed", error=_error(Invocation.BAD_OUTPUT, text))


def to_ending(
    report: Report.Finished, *, max_result_bytes: int, blob: Blob | None = None
) -> Ending:
    """A worker's verdict as the row keeps it; `blob` is what it names, if that is there.

    Workers stand next to untrusted code: a result that the API could not show, or a
    status that is no verdict, is BAD_OUTPUT, whatever the worker made of it.
    """
    status = Invocation.Status.Name(report.status).lower()
    error = _error_from_proto(report.error) if report.HasField("error") else None
    if report.status == Invocation.COMPLETED:
        error = _refusal(report, max_result_bytes, blob)
        status = "completed" if error is None else "failed"
    elif report.status not in (Invocation.FAILED, Invocation.TIMED_OUT):
        status = "failed"
        error = _error(Invocation.BAD_OUTPUT, "Its worker reported a status that is no verdict.")
    completed = status == "completed"
    return Ending(
        status=status,
        result=report.result if completed and blob is None else None,
        result_blob=blob.to_row() if completed and blob else None,
        result_type=(report.result_type or JSON) if completed else None,
        error=error,
        metrics=_metrics_from_proto(report.metrics),
        runtime_image=_storable(report.runtime_image),
        logs_truncated=report.logs_truncated,
    )


def _refusal(report: Report.Finished, max_bytes: int, blob: Blob | None) -> dict[str, Any] | None:
    if len(report.result) > max_bytes:
        text = f"The result is larger than the {max_bytes} bytes that are kept."
        return _error(Invocation.OUTPUT_TOO_LARGE, text)
    result_type = report.result_type or JSON
    if not is_content_type(result_type):
        return _error(Invocation.BAD_OUTPUT, "The result's content type is none.")
    large = report.HasField("large_result")
    if large and blob is None:
        return _error(Invocation.BAD_OUTPUT, "Its worker did not store the result that it tells.")
    if large or not is_json(result_type):
        return None
    try:
        check(report.result)
    except NotJson as error:
        return _error(Invocation.BAD_OUTPUT, f"The result is no JSON value: {error}.")
    return None


def _error(code: Invocation.ErrorCode.ValueType, message: str) -> dict[str, Any]:
    return {"code": Invocation.ErrorCode.Name(code), "message": message}


def _error_from_proto(error: Invocation.Error) -> dict[str, Any]:
    return {
        "code": Invocation.ErrorCode.Name(error.code),
        "message": _storable(error.message),
        "type": _storable(error.type),
        "stack": _storable(error.stack),
        "exit_code": error.exit_code,
    }


def _error_to_proto(error: dict[str, Any]) -> Invocation.Error:
    return Invocation.Error(**{**error, "code": Invocation.ErrorCode.Value(error["code"])})


def _metrics_from_proto(metrics: Invocation.Metrics) -> dict[str, Any]:
    known: dict[str, Any] = {"start_kind": Invocation.StartKind.Name(metrics.start_kind)}
    for name in _TOLD:
        if metrics.HasField(name):  # type: ignore[arg-type]
            known[f"{name}_s"] = getattr(metrics, name).ToTimedelta().total_seconds()
    if metrics.HasField("peak_memory_bytes"):
        known["peak_memory_bytes"] = metrics.peak_memory_bytes
    return known


def _metrics_to_proto(metrics: dict[str, Any]) -> Invocation.Metrics:
    shown = Invocation.Metrics(
        start_kind=Invocation.StartKind.Value(metrics.get("start_kind", "START_KIND_UNSPECIFIED")),
        peak_memory_bytes=metrics.get("peak_memory_bytes"),
    )
    for name in _PHASES:
        if (seconds := metrics.get(f"{name}_s")) is not None:
            getattr(shown, name).CopyFrom(_duration(max(0.0, seconds)))
    return shown


def _storable(text: str) -> str:
    # PostgreSQL's text and jsonb cannot hold NUL.
    return text.replace("\x00", "\ufffd")


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration


def _timestamp(moment: datetime | None) -> Timestamp | None:
    if moment is None:
        return None
    timestamp = Timestamp()
    timestamp.FromDatetime(moment)
    return timestamp
