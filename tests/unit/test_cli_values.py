"""The command's small parts: YAML, options, payloads, manifests, exit codes."""

import io
import json
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import yaml as reference
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from faas import errors
from faas.address import Address
from faas.cli import failures, manifest, yaml
from faas.cli.doctor import _keeps_secrets
from faas.cli.failures import ExitCode, Failed
from faas.cli.options import moment, pairs
from faas.cli.output import as_json, printable, size
from faas.cli.payloads import read_payload
from faas.contexts import Server
from faas.json_values import to_value
from faas.v1.invocation_pb2 import Invocation

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text("a: \n\t#|'", max_size=12)
    | st.text()
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(VALUES)
def test_yaml_reads_as_the_same(value):
    # JSON's floats without a dot ("1e+16") are text to YAML 1.1, and numbers to 1.2.
    value = json.loads(json.dumps(value), parse_float=lambda text: text)
    assert reference.safe_load(yaml.dumps(value)) == value


def test_yaml_is_readable():
    value = {
        "name": "hello",
        "labels": {},
        "on": "yes",
        "runtimes": [{"name": "go", "size": 1}, "x"],
        "stack": "Traceback:\n  here",
    }
    assert yaml.dumps(value) == (
        'name: hello\nlabels: {}\n"on": "yes"\nruntimes:\n  - name: go\n    size: 1\n  - x\n'
        "stack: |-\n  Traceback:\n    here\n"
    )


def test_pairs():
    assert pairs("--env", ["A=1", "B=x=y", "C="]) == {"A": "1", "B": "x=y", "C": ""}
    for wrong in ("A", "=1", ""):
        with pytest.raises(Failed, match="--env"):
            pairs("--env", [wrong])


def test_moments():
    now = datetime.now(UTC)
    ago = moment("--since", "2h")
    assert ago is not None
    assert abs(now - timedelta(hours=2) - ago) < timedelta(minutes=1)
    assert moment("--since", "2026-01-31T12:00:00Z") == datetime(2026, 1, 31, 12, tzinfo=UTC)
    assert moment("--since", None) is None
    for wrong in ("soon", "1e999d", "2026-13-01"):
        with pytest.raises(Failed, match="--since"):
            moment("--since", wrong)


def test_payloads(tmp_path: Path, monkeypatch):
    (tmp_path / "p.json").write_text('{"a": [1, 2.5]}')
    assert read_payload(None) is None
    assert read_payload('{"a": 1}') == {"a": 1}
    assert read_payload(f"@{tmp_path}/p.json") == {"a": [1, 2.5]}
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b'"in"')))
    assert read_payload("-") == "in"


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("hello", "quotes of its own"),
        ("{'a': 1}", "JSON quotes"),
        ("NaN", "no JSON"),
        ("@/nowhere/x", "/nowhere/x"),
        ("@/tmp", "cannot be read"),
        ("", "no JSON"),
    ],
)
def test_payloads_that_cannot_be(argument, said):
    with pytest.raises(Failed, match=said):
        read_payload(argument)


def test_a_huge_payload_is_not_even_read(tmp_path: Path):
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 33)
    with pytest.raises(Failed, match="larger"):
        read_payload(f"@{tmp_path}/huge")


def test_a_manifest(tmp_path: Path):
    (tmp_path / "faas.toml").write_text(
        'name = "a"\ncode = "src"\nmemory_mb = 64\n[env]\nA = "1"\n'
    )
    found = manifest.find(tmp_path)
    assert found == manifest.find(tmp_path / "faas.toml")
    assert found.code == tmp_path / "src"
    assert (found.name, found.settings) == ("a", {"memory_mb": 64, "env": {"A": "1"}})
    assert manifest.find(tmp_path / "x.py") == manifest.Manifest(tmp_path / "x.py")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("name = ", "no TOML"),
        ("memory = 3", "did you mean memory_mb"),
        ("name = 3", "name must be text"),
        ("zzzzzz = 3", "it takes name"),
    ],
)
def test_broken_manifests_are_named(tmp_path: Path, text, said):
    (tmp_path / "faas.toml").write_text(text)
    with pytest.raises(Failed, match=said) as caught:
        manifest.find(tmp_path)
    assert "faas.toml" in str(caught.value)


def test_a_manifest_that_is_not_text(tmp_path: Path):
    (tmp_path / "faas.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(Failed, match="no TOML"):
        manifest.find(tmp_path)


def test_every_error_has_an_exit_code_of_its_own_kind():
    def kinds(kind):
        yield kind
        for narrower in kind.__subclasses__():
            yield from kinds(narrower)

    for kind in kinds(errors.CallFailed):
        assert failures.exit_code(kind("x")) not in (ExitCode.DONE, ExitCode.FUNCTION_FAILED)
    assert failures.exit_code(errors.FunctionFailed(Invocation())) is ExitCode.FUNCTION_FAILED


def test_the_exit_codes_in_the_docstring_are_all():
    written = {
        int(line.split("|")[1])
        for line in (failures.__doc__ or "").splitlines()
        if line.startswith("| ") and line.split("|")[1].strip().isdigit()
    }
    assert written == set(ExitCode)


def test_an_error_names_its_fields_and_the_cure():
    violation = errors.FieldViolation("env[A]", "is too long")
    text = failures.explain(errors.InvalidRequest("Two fields are wrong.", violations=[violation]))
    assert text == "Two fields are wrong.\n  env[A]: is too long"
    assert "faas ls" in failures.explain(errors.FunctionNotFound("There is no x."))


def test_what_functions_print_commands_no_terminal():
    assert printable("a\x1b[31mb\tc\r\x00") == "a\\x1b[31mb\tc\\r\\x00"


def test_sizes():
    assert [size(n) for n in (0, 1023, 1536, 5 << 20, 3 << 40)] == [
        *("0 B", "1023 B", "1.5 KiB", "5.0 MiB", "3072.0 GiB")
    ]


def test_numbers_stay_integers():
    record = Invocation(payload=to_value({"n": 3, "f": 1.5}))
    found = as_json(record)
    assert json.dumps(found["payload"], sort_keys=True) == '{"f": 1.5, "n": 3}'


def test_a_credential_without_tls_is_warned_of():
    def found(url: str, token: str | None) -> list[str]:
        address = Address.parse(url)
        return [f.cure for f in _keeps_secrets(address, Server(url, token))]

    (cure,) = found("http://faas.example", "t")
    assert "https://faas.example:8080" in cure
    assert found("https://faas.example", "t") == []
    assert found("http://localhost:8080", "t") == []
    assert found("http://faas.example", None) == []
