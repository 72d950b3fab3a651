"""The command against real servers, through Envoy: what it does, says and ends with."""

import itertools
import json
import os
import pty
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import faas
from tests.conftest import wait_until
from tests.integration.command import Command
from tests.integration.gateway import free_port
from tests.platform import Platform

HELLO = """\
def handler(payload, context):
    print("greeting", payload["name"])
    return {"hello": payload["name"]}
"""
SLOW = """\
import time
def handler(payload):
    print("started", flush=True)
    time.sleep(payload)
    print("ended")
    return payload
"""

# Some run dozens of commands, each a process.
pytestmark = pytest.mark.timeout(900)

_numbers = itertools.count()


@pytest.fixture
def command(platform: Platform, tmp_path: Path) -> Command:
    return Command(platform.url, tmp_path / "config")


@pytest.fixture
def client(platform: Platform):
    with faas.Client(platform.url) as client:
        yield client


@pytest.fixture
def name() -> str:
    return f"cli-{os.getpid()}-{next(_numbers)}"


def test_from_nothing_to_a_result(command: Command, tmp_path: Path, name):
    folder = str(tmp_path / name)
    command.ok("init", folder)
    said = command.ok("deploy", folder)
    assert said.err.startswith(f"{name} created (python, ")
    said = command.ok("invoke", name, '{"name": "Ada"}')
    assert json.loads(said.out) == {"hello": "Ada"}
    assert said.err == ""
    assert command.ok("logs", name).out == "greeting Ada\n"
    assert command.ok("deploy", folder).err == f"{name} is as it was: version 1.\n"
    again = command("init", folder)
    assert again.code == 2
    assert "nothing was written" in again.err


@pytest.mark.parametrize("runtime", ["python", "node", "go"])
def test_each_template_runs_here_and_there(command: Command, tmp_path: Path, runtime, name):
    folder = str(tmp_path / name)
    command.ok("init", folder, "--runtime", runtime)
    here = command.ok("dev", folder, "--once", "--payload", '{"name": "Ada"}')
    command.ok("deploy", folder)
    there = command.ok("invoke", name, '{"name": "Ada"}')
    assert json.loads(here.out) == json.loads(there.out) == {"hello": "Ada"}
    assert "greeting Ada" in here.err


def test_payloads_come_from_argument_file_and_stdin(command: Command, client, tmp_path, name):
    client.deploy("def handler(p):\n    return p\n", name=name, runtime="python")
    (tmp_path / "p.json").write_text('[1, "ä"]')
    assert command.ok("invoke", name).out == "null\n"
    assert command.ok("invoke", name, '"x"').out == '"x"\n'
    assert command.ok("invoke", name, f"@{tmp_path}/p.json").out == '[1, "ä"]\n'
    assert command.ok("invoke", name, "-", stdin='{"a": 3}').out == '{"a": 3}\n'


def test_a_failed_function_shows_its_own_stack(command: Command, client, name):
    client.deploy("def handler(p):\n    return p['size']\n", name=name, runtime="python")
    said = command("invoke", name, "{}")
    assert said.code == 1
    assert said.out == ""
    assert 'File "main.py", line 2, in handler' in said.err
    assert "KeyError: 'size'" in said.err
    assert "/faas/" not in said.err


def test_async_follow_watch_and_wait(command: Command, client, name):
    client.deploy(SLOW, name=name, runtime="python")
    invocation = command.ok("invoke", name, "0.5", "--async").out.strip()
    assert invocation.startswith("inv-")
    watched = command.ok("invocations", "watch", invocation)
    assert watched.out == "started\nended\n"
    assert watched.err.splitlines()[-1] == "COMPLETED (attempt 1)"
    assert command.ok("invocations", "wait", invocation, "-o", "name").out.strip() == invocation
    followed = command.ok("invoke", name, "0", "--follow")
    assert (followed.out, followed.err) == ("0\n", "started\nended\n")
    waited = command("invoke", name, "600", "--timeout", "0.2")
    assert waited.code == 6
    assert "it goes on" in waited.err
    followed = command("invoke", name, "600", "--timeout", "0.5", "--follow")
    assert followed.code == 6
    assert "it goes on" in followed.err
    command.ok("invocations", "cancel", "--function", name)


def test_a_function_is_followed_from_one_invocation_to_the_next(command: Command, client, name):
    fn = client.deploy("def handler(p):\n    print('got', p)\n", name=name, runtime="python")
    process = command.popen("logs", name, "--follow")
    assert process.stderr is not None
    assert process.stdout is not None
    assert process.stderr.readline() == f"{name} has not been invoked yet: waiting.\n"
    for number in (1, 2, 3):
        invocation = fn.submit(number)
        assert process.stderr.readline() == f"{invocation.id}:\n"
        assert process.stdout.readline() == f"got {number}\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, "Traceback" in err) == (130, "", False)


def test_ctrl_c_says_how_to_go_on(command: Command, client, name):
    client.deploy(SLOW, name=name, runtime="python", timeout=600)
    process = command.popen("invoke", name, "600", "--follow")
    assert process.stderr is not None
    assert process.stderr.readline() == "started\n"
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    (invocation,) = client.invocations(function_id=name)
    assert process.returncode == 130
    assert err.strip() == (
        f"{invocation.id} goes on: `faas invocations watch {invocation.id}` looks after it,"
        f" `faas invocations cancel {invocation.id}` ends it."
    )
    assert out == ""
    assert "is cancelled" in command.ok("invocations", "cancel", invocation.id).err
    assert invocation.refresh().status == invocation.record.CANCELLED


def test_cancelling_pausing_and_resuming(command: Command, client, name):
    fn = client.deploy(SLOW, name=name, runtime="python")
    assert f"faas resume {name}" in command.ok("pause", name).err
    waiting = fn.submit(0)
    assert "1 invocations" in command.ok("invocations", "cancel", "--function", name).err
    assert waiting.refresh().status == waiting.record.CANCELLED
    later = command.ok("invoke", name, "0", "--delay", "1d").out.strip()
    assert client.invocation(later).refresh().HasField("next_attempt_at")
    command.ok("resume", name)
    command.ok("invocations", "cancel", later)
    done = fn.submit(0)
    done.wait()
    assert "ended" in command.ok("invocations", "cancel", done.id).err
    assert command("invocations", "cancel").code == 2


def test_stats(command: Command, client, name):
    fn = client.deploy("def handler(p):\n    return 1 // p\n", name=name, runtime="python")
    assert "Nothing has ended" in command.ok("stats", name).out
    for payload in (1, 1, 0):
        fn.submit(payload).wait()

    def counted() -> dict[str, int]:
        return {count.status: count.count for count in client.stats(name).counts}

    wait_until(lambda: counted() == {"COMPLETED": 2, "FAILED": 1}, "they are counted")
    said = command.ok("stats", name)
    assert said.out.splitlines()[0] == "Now: running 0, queued 0, delayed 0"
    assert ["COMPLETED", "2"] in [line.split() for line in said.out.splitlines()]
    phases = json.loads(command.ok("stats", name, "-o", "json").out)["latencies"]
    assert {phase["phase"] for phase in phases} >= {"duration", "run"}
    assert command("stats", "cli-gone").code == 3
    assert command("stats", "--window", "soon").code == 2
    assert command("stats", "--window", "1s").code == 4


def test_explaining_replaying_and_comparing(command: Command, client, name):
    code = "def handler(p):\n    return {'n': 1, 'same': p}\n"
    first = client.deploy(code, name=name, runtime="python").submit("x")
    first.wait()
    account = command.ok("invocations", "explain", first.id)
    assert "COMPLETED" in account.out or "completed" in account.out
    assert "waiting " in account.out.splitlines()[-1]
    steps = json.loads(command.ok("invocations", "explain", first.id, "-o", "json").out)["steps"]
    assert len(steps) >= 3
    same = command.ok("invocations", "replay", first.id)
    assert same.out == f"It ended as {first.id} did.\n"
    client.deploy(code.replace("1", "2"), name=name, runtime="python")
    other = command("invocations", "replay", first.id, "--version", "0")
    assert other.code == 1
    assert other.out.splitlines()[0] == f"It ended otherwise than {first.id}:"
    assert other.out.splitlines()[2].split() == ["/result/n", "1", "2"]
    new = other.err.split()[0]
    compared = command("invocations", "compare", new, first.id, "-o", "json")
    assert compared.code == 1
    assert json.loads(compared.out)["differences"] == [
        {"path": "/result/n", "before": 1, "after": 2}
    ]
    said = command("invocations", "compare", first.id)
    assert said.code == 4
    assert "Traceback" not in said.err


def test_schedules(command: Command, client, name):
    client.deploy(HELLO, name=name, runtime="python")
    options = ["--payload", '{"name": "Ada"}', "--time-zone", "Europe/Berlin"]
    id_ = command.ok("schedules", "create", name, "0 4 * * MON", *options).out.strip()
    assert id_.startswith("sched-")
    listed = command.ok("schedules", "ls", "--function", name).out
    assert "0 4 * * MON" in listed
    assert "Europe/Berlin" in listed
    command.ok("schedules", "pause", id_)
    assert "paused" in command.ok("schedules", "ls", "--function", name).out
    assert "fires next at" in command.ok("schedules", "resume", id_).err
    record = json.loads(
        command.ok("schedules", "update", id_, "--cron", "@daily", "-o", "json").out
    )
    assert (record["cron"], record["payload"]) == ("@daily", {"name": "Ada"})
    assert json.loads(command.ok("schedules", "get", id_, "-o", "json").out) == record
    said = command("schedules", "create", name, "every day")
    assert said.code == 4
    assert "cron" in said.err
    command.ok("schedules", "rm", id_)
    assert command("schedules", "get", id_).code == 3


def test_raw_calls(command: Command, client, tmp_path, name):
    client.deploy("def handler(p):\n    return p\n", name=name, runtime="python")
    assert command.ok("call", name, '{"n": 12345678901234567890123}').out == (
        '{"n":12345678901234567890123}'
    )
    (tmp_path / "picture.png").write_bytes(bytes(range(256)))
    command.ok("call", name, f"@{tmp_path}/picture.png", "--to", str(tmp_path / "back"))
    assert command("call", name, "@/nowhere").code == 2
    (tmp_path / "large").write_bytes(bytes(range(256)) * 8192)
    said = command.ok("call", name, f"@{tmp_path}/large", "--to", str(tmp_path / "back"))
    assert said.err == f"2097152 bytes of application/octet-stream are in {tmp_path}/back.\n"
    assert (tmp_path / "back").read_bytes() == (tmp_path / "large").read_bytes()
    command.ok("invoke", name, '{"a": 1}', "--to", str(tmp_path / "back"))
    assert (tmp_path / "back").read_bytes() == b'{"a":1}'
    assert command("invoke", name, "1", "--async", "--to", str(tmp_path / "back")).code == 2
    client.deploy("def handler(p):\n    raise ValueError(3)\n", name=name, runtime="python")
    said = command("call", name, "{}")
    assert (said.code, said.out) == (1, "")
    assert "faas invocations get inv-" in said.err


def test_dead_letters(command: Command, client, name):
    code = "def handler(p):\n    return 1 // p\n"
    failed = client.deploy(code, name=name, runtime="python").submit(0)
    failed.wait()
    assert command.ok("dlq", "ls", "--function", name).err == "None.\n"
    assert command("dlq", "redrive").code == 2
    client.deploy("def handler(p):\n    return p\n", name=name, runtime="python")
    said = command.ok("dlq", "redrive", failed.id, "--latest", "-o", "name")
    assert client.invocation(said.out.strip()).result() == 0
    said = command.ok("dlq", "redrive", "--function", name, "--status", "failed")
    assert said.err == "There is nothing to take up again.\n"
    assert command.ok("dlq", "messages", "-o", "json").out.startswith("[")
    done = client.function(name).submit(1)
    done.wait()
    said = command("dlq", "redrive", done.id)
    assert said.code == 4
    assert done.id in said.out


def test_what_is_deployed_again_is_told_as_a_difference(command: Command, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "main.py").write_text(HELLO)
    command.ok("deploy", str(folder), "--env", "A=1", "--label", "team=search")
    planned = command.ok("deploy", str(folder), "--memory", "256", "--env", "A=2", "--dry-run")
    assert planned.err == (f"{name} would be changed:\n  memory_mb: 128 -> 256\n  env.A: 1 -> 2\n")
    done = command.ok("deploy", str(folder), "--memory", "256", "--env", "A=2")
    assert done.err.startswith(
        f"{name} changed, version 1 -> 2:\n  memory_mb: 128 -> 256\n  env.A: 1 -> 2\n"
    )
    (folder / "main.py").write_text(HELLO + "# more\n")
    assert "  code: " in command.ok("deploy", str(folder)).err
    planned = command.ok("deploy", str(folder), "--name", f"{name}-new", "--dry-run")
    assert planned.err.startswith(f"{name}-new would be created")
    assert command("get", f"{name}-new").code == 3


def test_a_manifest_says_what_a_function_is(command: Command, tmp_path, name):
    (tmp_path / "src").mkdir()
    (tmp_path / "src" / "main.py").write_text(HELLO)
    (tmp_path / "faas.toml").write_text(
        f'name = "{name}"\ncode = "src"\nmemory_mb = 64\ntimeout = "5s"\n'
        '[env]\nPORT = 8080\n[retry_policy]\nmax_attempts = 3\nretry_on = ["TIMEOUT"]\n'
    )
    command.ok("deploy", str(tmp_path), "--cpus", "0.5")
    record = json.loads(command.ok("get", name, "-o", "json").out)
    assert (record["memory_mb"], record["timeout"], record["cpus"]) == (64, "5s", 0.5)
    assert record["env"] == {"PORT": "8080"}
    assert record["retry_policy"]["max_attempts"] == 3


LAMBDA = """\
import json, os

def lambda_handler(event, context):
    left = context.get_remaining_time_in_millis()
    assert 0 < left <= 30000, left
    return {
        "statusCode": 200,
        "body": json.dumps(event),
        "request": context.aws_request_id,
        "name": [context.function_name, os.environ["AWS_LAMBDA_FUNCTION_NAME"]],
        "arn": context.invoked_function_arn,
        "memory": context.memory_limit_in_mb,
    }
"""


def test_a_handler_written_for_lambda_runs_as_it_is(command: Command, client, tmp_path, name):
    (tmp_path / "lambda_function.py").write_text(LAMBDA)
    option = ["--lambda", "lambda_function.lambda_handler"]
    command.ok("deploy", str(tmp_path), "--name", name, "--memory", "256", *option)
    record = json.loads(command.ok("invoke", name, '{"a": 1}', "-o", "json").out)
    assert record["result"] == {
        "statusCode": 200,
        "body": '{"a": 1}',
        "request": record["id"],
        "name": [name, name],
        "arn": f"arn:aws:lambda:local:000000000000:function:{name}",
        "memory": "256",
    }
    (tmp_path / "faas.toml").write_text('lambda = "lambda_function.lambda_handler"\n')
    said = command.ok("deploy", str(tmp_path), "--name", name, "--memory", "256")
    assert said.err == f"{name} is as it was: version 1.\n"
    said = command("deploy", str(tmp_path), "--name", name, "--lambda", "gone.handler")
    assert said.code == 2
    assert "gone.py" in said.err


def test_dependencies_travel_in_the_archive(command: Command, tmp_path, name):
    package = tmp_path / "greeter"
    package.mkdir()
    (package / "pyproject.toml").write_text(
        '[build-system]\nrequires = []\nbuild-backend = "backend"\nbackend-path = ["."]\n'
        '[project]\nname = "greeter"\nversion = "1"\n'
    )
    (package / "backend.py").write_text(_BACKEND)
    folder = tmp_path / name
    folder.mkdir()
    (folder / "main.py").write_text(
        "import greeter\ndef handler(p):\n    return greeter.hello(p)\n"
    )
    (folder / "requirements.txt").write_text(f"{package}\n")
    command.ok("deploy", str(folder))
    assert command.ok("invoke", name, '"x"').out == '"hello x"\n'
    assert sorted(p.name for p in folder.iterdir()) == ["main.py", "requirements.txt"]
    assert command.ok("deploy", str(folder)).err.endswith(" is as it was: version 1.\n")
    assert command.ok("deploy", str(folder), "--no-deps").err.startswith(f"{name} changed")


# Makes a wheel of one module with nothing but the standard library.
_BACKEND = """
import zipfile
def build_wheel(directory, config_settings=None, metadata_directory=None):
    with zipfile.ZipFile(f"{directory}/greeter-1-py3-none-any.whl", "w") as wheel:
        wheel.writestr("greeter.py", "def hello(name):\\n    return 'hello ' + name\\n")
        info = "greeter-1.dist-info"
        wheel.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\\nName: greeter\\nVersion: 1\\n")
        tag = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        wheel.writestr(f"{info}/WHEEL", tag)
        files = ["greeter.py", *(f"{info}/{name}" for name in ("METADATA", "WHEEL", "RECORD"))]
        wheel.writestr(f"{info}/RECORD", "".join(f"{file},,\\n" for file in files))
    return "greeter-1-py3-none-any.whl"
"""


def test_dependencies_that_cannot_be_had_are_told(command: Command, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "main.py").write_text(HELLO)
    (folder / "requirements.txt").write_text("./nowhere\n")
    said = command("deploy", str(folder))
    assert said.code == 2
    assert "requirements.txt failed" in said.err
    assert "--no-deps" in said.err
    (folder / "main.py").rename(folder / "main.js")
    (folder / "package.json").write_text('{"dependencies": {"x": "1"}}')
    command.environment["PATH"] = str(tmp_path)
    said = command("deploy", str(folder))
    assert said.code == 2
    assert "npm, which is not on PATH" in said.err


def test_lists_tell_that_they_were_cut(command: Command, client, name):
    fn = client.deploy("def handler(p):\n    return p\n", name=name, runtime="python")
    ids = [fn.submit(n).id for n in range(3)]
    said = command.ok("invocations", "ls", "-f", name, "--limit", "2", "-o", "name")
    assert said.out.split() == ids[:0:-1]
    assert "--limit 0" in said.err
    said = command.ok("invocations", "ls", "-f", name, "--limit", "0", "-o", "name")
    assert said.out.split() == ids[::-1]
    assert said.err == ""


def test_code_is_written_whole_or_not_at_all(command: Command, client, tmp_path, name):
    client.deploy(HELLO, name=name, runtime="python")
    command.ok("code", name, "--to", str(tmp_path / "got.py"))
    assert (tmp_path / "got.py").read_text() == HELLO
    assert command("code", "cli-gone", "--to", str(tmp_path / "gone.py")).code == 3
    assert not (tmp_path / "gone.py").exists()
    assert command("code", name, "--to", "/nowhere/x").code == 2


def test_rm(command: Command, client, name):
    client.deploy(HELLO, name=name, runtime="python")
    said = command("rm", name, "cli-gone")
    assert said.code == 3
    assert f"{name} is deleted." in said.err
    assert "cli-gone" in said.err
    command.ok("rm", name, "--ignore-missing")


def test_colours_are_for_terminals_alone(command: Command, client, name):
    client.deploy(HELLO, name=name, runtime="python")
    assert "\x1b" not in command.ok("ls").out

    def on_a_terminal(*arguments: str, **environment: str) -> str:
        master, slave = pty.openpty()
        env = {**command.environment, "TERM": "xterm", **environment}
        process = command.popen(*arguments, stdout=slave, stderr=slave, env=env)
        os.close(slave)
        printed = b""
        try:
            while chunk := os.read(master, 65536):
                printed += chunk
        except OSError:  # how a terminal ends
            pass
        process.communicate(timeout=60)
        os.close(master)
        return printed.decode()

    assert "\x1b[1mNAME" in on_a_terminal("ls")
    assert "\x1b" not in on_a_terminal("ls", NO_COLOR="1")
    assert "runs …" in on_a_terminal("invoke", name, '{"name": "x"}')
    assert "runs …" not in command.ok("invoke", name, '{"name": "x"}').err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["get", "cli-gone"], 3, "faas ls"),
        (["invoke", "cli-gone", "{}"], 3, "cli-gone"),
        (["invocations", "get", "inv-01900000-0000-7000-8000-000000000000"], 3, "invocations ls"),
        (["invocations", "get", "nonsense"], 4, "invocation_id"),
        (["workers", "drain", "worker-01900000-0000-7000-8000-000000000000"], 3, "workers ls"),
        (["invoke", "cli-hello", "{not json"], 2, "no JSON"),
        (["invoke", "cli-hello", "@/nowhere"], 2, "/nowhere"),
        (["invoke", "cli-hello", "null", "--label", "x"], 2, "KEY=VALUE"),
        (["invoke", "cli-hello", "null", "--version", "99"], 3, "faas versions"),
        (["ls", "--filter", "nope ="], 4, "filter"),
        (["ls", "--nope"], 2, "--nope"),
        (["invocations", "ls", "--status", "nope"], 2, "PENDING"),
        (["invocations", "ls", "--since", "soon"], 2, "--since"),
        (["deploy", "/nowhere"], 2, "/nowhere"),
        (["deploy", "/dev/null"], 2, "/dev/null"),
        (["logs", "cli-never"], 3, "cli-never"),
        (["--context", "nope", "ls"], 2, "'nope'"),
        (["--server", "ftp://x", "ls"], 2, "no address"),
    ],
)
def test_every_error_has_its_exit_code_and_says_what_to_do(
    command: Command, client, arguments, code, said
):
    client.deploy(HELLO, name="cli-hello", runtime="python")
    found = command(*arguments)
    assert found.code == code, found
    assert said in found.err
    assert "Traceback" not in found.err
    assert found.out == ""


BROKEN = "package main\n\nfunc Handler() {\n\tmissing()\n}\n"


def test_what_does_not_compile_is_told(command: Command, tmp_path: Path, name):
    (tmp_path / "main.go").write_text(BROKEN)
    said = command("deploy", str(tmp_path), "--name", name, "--validate")
    assert said.code == 4
    assert "archive: does not compile:\nmain.go:4:2: undefined: missing" in said.err
    assert command("get", name).code == 3
    said = command("deploy", str(tmp_path), "--name", name)
    assert said.code == 1
    assert f"{name}, version 1, does not compile:\nmain.go:4:2: undefined: missing" in said.err
    (row,) = command.ok("versions", name).out.splitlines()[1:]
    assert " FAILED " in row
    assert "main.go:4:2: undefined: missing" in command.ok("get", name).out
    said = command("invoke", name, "null")
    assert said.code == 1
    assert "CompileError: main.go:4:2: undefined: missing" in said.err


@pytest.mark.parametrize(
    ("files", "options", "code", "said"),
    [
        ({"main.py": HELLO}, ["--name", "Bad_Name"], 4, "name"),
        ({"main.py": HELLO}, ["--runtime", "cobol"], 4, "python"),
        ({"main.py": HELLO}, ["--handler", "gone.handler"], 4, "gone.py"),
        ({"main.py": HELLO}, ["--memory", "1"], 4, "memory_mb"),
        ({"main.py": HELLO}, ["--timeout", "soon"], 2, "timeout"),
        ({"main.py": HELLO}, ["--env", "LD_PRELOAD=x"], 4, "env"),
        ({"notes.txt": "x"}, [], 2, "main.py"),
        ({"main.py": HELLO, "faas.toml": "name ="}, [], 2, "faas.toml"),
        ({"main.py": HELLO, "faas.toml": 'code = "gone"'}, [], 2, "gone"),
        ({"main.py": HELLO, "faas.toml": "[env]\nA = []"}, [], 2, "env"),
    ],
)
def test_what_cannot_be_deployed_changes_nothing(
    command: Command, client, tmp_path, name, files, options, code, said
):
    folder = tmp_path / name
    folder.mkdir()
    for file, text in files.items():
        (folder / file).write_text(text)
    found = command("deploy", str(folder), *options)
    assert (found.code, "Traceback" in found.err) == (code, False), found
    assert said in found.err
    with pytest.raises(faas.FunctionNotFound):
        client.function(name).refresh()


def test_a_huge_file_is_refused_with_the_limit(command: Command, tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "main.py").write_text(HELLO)
    with (folder / "huge").open("wb") as file:
        file.truncate(600 << 20)
    (aside := tmp_path / "aside").mkdir()
    command.environment["TMPDIR"] = str(aside)
    found = command("deploy", str(folder))
    assert found.code == 4
    assert "bytes" in found.err
    assert list(aside.iterdir()) == []


def test_ctrl_c_while_deploying_leaves_nothing_behind(
    command: Command, client, tmp_path: Path, name
):
    folder = tmp_path / name
    folder.mkdir()
    (folder / "main.py").write_text(HELLO)
    (folder / "requirements.txt").write_text("anything\n")
    (aside := tmp_path / "aside").mkdir()
    # An installer that takes for ever.
    (tools := tmp_path / "tools").mkdir()
    (tools / "uv").write_text("#!/bin/sh\necho $$ > ../pid\nexec sleep 1000\n")
    (tools / "uv").chmod(0o755)
    command.environment |= {
        "TMPDIR": str(aside),
        "PATH": f"{tools}{os.pathsep}{command.environment['PATH']}",
    }
    process = command.popen("deploy", str(folder))
    wait_until(lambda: any(aside.glob("*/pid")), "the installer runs")
    pid = next(aside.glob("*/pid"))
    wait_until(lambda: bool(pid.read_text()), "it has said who it is")
    installer = int(pid.read_text())
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert list(aside.iterdir()) == []
    wait_until(lambda: not _runs(installer), "the installer is gone")
    with pytest.raises(faas.FunctionNotFound):
        client.function(name).refresh()


def test_nobody_there(command: Command):
    command.environment["FAAS_SERVER"] = f"http://127.0.0.1:{free_port()}"
    found = command("ls")
    assert found.code == 5
    assert "faas up" in found.err
    assert command.environment["FAAS_SERVER"] in found.err


def test_contexts(command: Command, platform: Platform, client):
    del command.environment["FAAS_SERVER"]
    command.ok("context", "set", "here", platform.url)
    command.ok("context", "set", "away", "https://faas.example", "--token-stdin", stdin="secret\n")
    assert command.ok("workers", "ls", "-o", "name").out
    assert "secret" not in command.ok("context", "ls").out
    assert command.ok("context", "ls", "-o", "name").out == "away\nhere\n"
    command.ok("context", "use", "away")
    assert command.ok("--context", "here", "workers", "ls", "-o", "name").out
    command.ok("context", "rm", "away")
    assert command("--context", "away", "ls").code == 2


def test_dev_runs_again_when_a_file_is_saved(command: Command, tmp_path):
    file = tmp_path / "main.py"
    file.write_text("def handler(p):\n    return 1\n")
    process = command.popen("dev", str(tmp_path))
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    file.write_text("def handler(p):\n    return 22\n")
    assert process.stdout.readline() == "22\n"
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130


def test_dev_answers_requests(command: Command, tmp_path):
    import httpx

    (tmp_path / "main.js").write_text("exports.handler = (p) => ({ got: p });\n")
    process = command.popen("dev", str(tmp_path), "--port", "0")
    assert process.stderr is not None
    url = process.stderr.readline().split()[4]
    with httpx.Client(trust_env=False, timeout=60) as http:
        assert http.post(url, json=[1]).json() == {"got": [1]}
        assert http.post(url, content=b"{").status_code == 400
        assert http.post(url, json=1, headers={"Origin": "http://evil"}).status_code == 403
        assert http.post(url, json=1, headers={"Host": "evil:80"}).status_code == 403
        (tmp_path / "main.js").write_text("exports.handler = () => { throw new Error('no') };\n")
        assert http.post(url, json=1).status_code == 500
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)


def test_dev_tells_failures_and_leaves_nothing_running(command: Command, tmp_path):
    file = tmp_path / "main.py"
    (tmp_path / "faas.toml").write_text('timeout = "5s"\n')
    file.write_text("def handler(p):\n    return p['x']\n")
    said = command("dev", str(tmp_path), "--once", "-p", "{}")
    assert said.code == 1
    assert "KeyError" in said.err
    file.write_text(
        "import os, subprocess\ndef handler(p):\n"
        "    child = subprocess.Popen(['sleep', '1000'])\n"
        "    open(p, 'w').write(str(child.pid))\n    child.wait()\n"
    )
    pid = tmp_path / "pid"
    said = command("dev", str(tmp_path), "--once", "-p", json.dumps(str(pid)))
    assert said.code == 1
    assert "TIMEOUT" in said.err
    wait_until(lambda: not _runs(int(pid.read_text())), "the child is gone")


def _runs(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False


def test_it_says_its_version(command: Command):
    assert command.ok("--version").out == f"faas-mesh {faas.__version__}\n"


def test_completion_knows_the_commands(command: Command):
    command.environment |= {
        "_FAAS_COMPLETE": "complete_bash",
        "COMP_WORDS": "faas inv",
        "COMP_CWORD": "1",
    }
    assert command().out.split() == ["invoke", "invocations"]


def test_completion_knows_the_names(command: Command, client, name):
    client.deploy(HELLO, name=f"{name}-complete", runtime="python")

    def offered(typed: str) -> list[str]:
        words = typed.split(" ")
        command.environment |= {
            "_FAAS_COMPLETE": "complete_bash",
            "COMP_WORDS": typed,
            "COMP_CWORD": str(len(words) - 1),
        }
        said = command()
        assert said.err == ""
        return said.out.split()

    # A shell is not kept waiting; a slow machine may need more than one try.
    wait_until(lambda: f"{name}-complete" in offered(f"faas invoke {name}-c"), "it is offered")
    assert offered("faas invoke no-such-thing") == []
    command.environment["FAAS_SERVER"] = f"http://127.0.0.1:{free_port()}"
    assert offered(f"faas invoke {name}-c") == []


class TestDoctor:
    """Broken set-ups, made on purpose: each is named, with a cure."""

    def found(self, command: Command) -> list[dict]:
        said = command("doctor", "-o", "json")
        found = json.loads(said.out)
        assert "Traceback" not in said.err
        levels = {finding["level"] for finding in found}
        assert said.code == (5 if "bad" in levels else 0)
        assert all(f["cure"] for f in found if f["level"] != "good")
        return found

    def named(self, command: Command, level: str) -> str:
        return "\n".join(f["what"] for f in self.found(command) if f["level"] == level)

    def test_nothing_is_wrong_but_what_is(self, command: Command):
        found = self.found(command)
        assert "bad" not in {f["level"] for f in found}
        assert "isolates nothing" in self.named(command, "warning")
        assert command.ok("doctor").out.startswith("         FOUND\n")

    def test_a_broken_context_file(self, command: Command):
        del command.environment["FAAS_SERVER"]
        file = Path(command.environment["XDG_CONFIG_HOME"]) / "faas" / "contexts.toml"
        file.parent.mkdir(parents=True)
        file.write_text("current =")
        assert "contexts.toml" in self.named(command, "bad")

    def test_an_address_that_is_none(self, command: Command):
        command.environment["FAAS_SERVER"] = "http://localhost:port"
        assert "no address" in self.named(command, "bad")

    def test_an_unknown_name(self, command: Command):
        command.environment["FAAS_SERVER"] = "http://no-such-host.invalid"
        assert "no-such-host.invalid is not known" in self.named(command, "bad")

    def test_nobody_listens(self, command: Command):
        command.environment["FAAS_SERVER"] = f"http://127.0.0.1:{free_port()}"
        assert "Nothing listens" in self.named(command, "bad")

    def test_tls_where_there_is_none(self, command: Command):
        url = command.environment["FAAS_SERVER"]
        command.environment["FAAS_SERVER"] = url.replace("http:", "https:")
        assert "speaks no TLS" in self.named(command, "bad")

    def test_something_else_listens(self, command: Command, tmp_path):
        with subprocess.Popen(
            [sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            cwd=tmp_path,
            text=True,
        ) as other:
            assert other.stdout is not None
            port = other.stdout.readline().split()[5]
            command.environment["FAAS_SERVER"] = f"http://127.0.0.1:{port}"
            found = self.named(command, "bad")
            other.terminate()
        assert "No server answers" in found or "no faas-mesh" in found

    def test_a_certificate_that_is_not_there(self, command: Command):
        del command.environment["FAAS_SERVER"]
        with socket.create_server(("127.0.0.1", 0)) as server:
            url = f"https://127.0.0.1:{server.getsockname()[1]}"
            command.ok("context", "set", "x", url, "--certificate", "/nowhere.pem")
            assert "/nowhere.pem" in self.named(command, "bad")

    def test_a_silent_server(self, command: Command):
        with socket.create_server(("127.0.0.1", 0), backlog=8) as server:
            command.environment["FAAS_SERVER"] = f"http://127.0.0.1:{server.getsockname()[1]}"
            assert self.named(command, "bad")

    def test_a_service_that_is_away(self, command: Command, platform: Platform):
        platform.portal.run(platform.mesh.kill("functions"))
        try:
            assert "does not answer" in self.named(command, "bad")
        finally:
            platform.portal.run(platform.mesh.start("functions"))

    def test_workers_that_take_no_work(self, command: Command, client):
        worker = next(client.workers())
        client.drain_worker(worker.id)
        wait_until(lambda: client.worker(worker.id).state != 1, "it drains")
        try:
            assert "No worker takes work" in self.named(command, "bad")
            assert "takes no work" in self.named(command, "warning")
        finally:
            client.resume_worker(worker.id)
            wait_until(lambda: client.worker(worker.id).state == 1, "it takes work again")


def test_deploying_without_a_worker_is_told(command: Command, client, tmp_path, name):
    (tmp_path / "main.py").write_text(HELLO)
    worker = next(client.workers())
    client.drain_worker(worker.id)
    wait_until(lambda: client.worker(worker.id).state != 1, "it drains")
    try:
        said = command.ok("deploy", str(tmp_path), "--name", name, "--wait", "0")
        assert "No worker runs python now" in said.err
        timer = threading.Timer(0.2, client.resume_worker, [worker.id])
        timer.start()
        assert "No worker" not in command.ok("deploy", str(tmp_path), "--name", name).err
        timer.join()
    finally:
        client.resume_worker(worker.id)
        wait_until(lambda: client.worker(worker.id).state == 1, "it takes work again")
