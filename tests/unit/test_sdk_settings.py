"""Settings as requests carry them."""

from datetime import timedelta

import pytest

from faas.errors import InvalidSettings
from faas.settings import NAMES, Settings, fill, values
from faas.v1.function_pb2 import Function
from faas.v1.function_service_pb2 import CreateFunctionRequest, UpdateFunctionRequest


def test_the_typed_settings_are_those_of_the_proto():
    assert set(Settings.__annotations__) == set(NAMES), "complete faas.settings.Settings"


def test_both_requests_have_them():
    for request in (CreateFunctionRequest, UpdateFunctionRequest):
        assert set(NAMES) <= set(request.DESCRIPTOR.fields_by_name)


@pytest.mark.parametrize("timeout", [1.5, "1.5s", timedelta(seconds=1.5)])
def test_seconds_are_written_in_three_ways(timeout):
    request = fill(CreateFunctionRequest(), {"timeout": timeout})
    assert request.timeout.ToTimedelta() == timedelta(seconds=1.5)


def test_numbers_in_env_are_text():
    request = fill(CreateFunctionRequest(), {"env": {"PORT": 8080, "HOST": "x"}})
    assert dict(request.env) == {"PORT": "8080", "HOST": "x"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"memory_mb": "much"},
        {"timeout": "soon"},
        {"env": {"A": ["b"]}},
        {"env": "A=b"},
        {"cpus": {}.get},
        {"handler": 3},
        {"retry_policy": {"max_attempt": 3}},
        {"retry_policy": 3},
    ],
)
def test_values_that_cannot_be_are_named(wrong):
    with pytest.raises(InvalidSettings, match=next(iter(wrong))):
        fill(CreateFunctionRequest(), wrong)


def test_an_unknown_setting_gets_a_suggestion():
    with pytest.raises(InvalidSettings, match="did you mean memory_mb"):
        fill(CreateFunctionRequest(), {"memory": 3})


def test_an_update_needs_a_mask_only_to_clear():
    assert not fill(UpdateFunctionRequest(), {"memory_mb": 3}).HasField("update_mask")
    request = UpdateFunctionRequest(code="x", runtime="python")
    request = fill(request, {"memory_mb": 3, "env": {}, "handler": None})
    assert set(request.update_mask.paths) == {"memory_mb", "env", "handler", "code", "runtime"}
    assert not request.HasField("handler")


def test_values_are_as_people_write_them():
    function = Function(name="x", memory_mb=128, cpus=0.5)
    function.timeout.FromSeconds(30)
    found = values(function)
    assert found["timeout"] == "30s"
    assert found["cpus"] == 0.5
    assert found["env"] == {}
    assert "name" not in found


def test_a_retry_policy_is_written_as_a_table():
    policy = {"max_attempts": 3, "initial_backoff": 2, "retry_on": ["TIMEOUT"]}
    request = fill(CreateFunctionRequest(), {"retry_policy": policy, "max_age": 60})
    assert request.retry_policy.max_attempts == 3
    assert request.retry_policy.initial_backoff.seconds == 2
    assert request.max_age.seconds == 60
    assert values(request)["retry_policy"]["retry_on"] == ["TIMEOUT"]
