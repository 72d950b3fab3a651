"""How statuses become errors."""

import re

import grpc
import grpc.aio
import pytest
from google.rpc import code_pb2, status_pb2

from faas import errors
from faas.v1.error_reason_pb2 import ErrorReason
from faas.v1.invocation_pb2 import Invocation


def test_every_reason_has_a_class():
    reasons = set(ErrorReason.keys()) - {"ERROR_REASON_UNSPECIFIED"}
    assert reasons - set(errors.by_reason()) == set(), "give it a class"


def test_no_reason_is_made_up():
    assert set(errors.by_reason()) <= set(ErrorReason.keys())


def test_every_status_but_ok_and_cancelled_has_a_class():
    codes = set(grpc.StatusCode) - {grpc.StatusCode.OK, grpc.StatusCode.CANCELLED}
    assert set(errors.by_code()) == codes


def test_the_tree_in_the_docstring_is_the_real_one():
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__)

    def below(kind):
        for narrower in kind.__subclasses__():
            yield narrower.__name__
            yield from below(narrower)

    assert sorted(drawn) == sorted(set(below(errors.FaasError)))


def test_a_status_that_is_of_another_error_is_not_believed():
    status = status_pb2.Status(code=code_pb2.UNKNOWN, message="too long for these headers")
    trailers = grpc.aio.Metadata(("grpc-status-details-bin", status.SerializeToString()))
    cut_off = grpc.aio.AioRpcError(
        grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.aio.Metadata(), trailers, "metadata too large"
    )
    found = errors.from_rpc_error(cut_off)
    assert (found.code, str(found)) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "metadata too large")


def test_a_failed_function_shows_its_own_stack():
    record = Invocation(id="inv-1", function_name="hello", status=Invocation.FAILED)
    record.error.code = Invocation.FUNCTION_ERROR
    record.error.type, record.error.message = "ValueError", "no such size"
    record.error.stack = 'Traceback\n  File "main.py", line 3, in handler'
    failure = errors.FunctionFailed(record)
    assert str(failure) == (
        "hello (inv-1): FUNCTION_ERROR: ValueError: no such size\n"
        'Traceback\n  File "main.py", line 3, in handler'
    )
    assert failure.code == "FUNCTION_ERROR"


@pytest.mark.parametrize(
    ("kind", "message", "said"),
    [("", "out of memory", "OUT_OF_MEMORY: out of memory"), ("", "", "OUT_OF_MEMORY")],
)
def test_a_failure_without_type_or_message_still_reads_well(kind, message, said):
    record = Invocation(id="inv-1", function_name="hello", status=Invocation.FAILED)
    record.error.code = Invocation.OUT_OF_MEMORY
    record.error.type, record.error.message = kind, message
    assert str(errors.FunctionFailed(record)) == f"hello (inv-1): {said}"
