"""What every command says, as people and as programs get it, against real servers.

`make golden` writes the files anew; a change of them is to be looked at.
"""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.main import get_command
from typer.testing import CliRunner

import faas
from faas.cli.main import application
from tests.conftest import wait_until
from tests.integration.command import GOLDEN, Said, assert_golden
from tests.platform import Platform

# A loaded machine is slow, not wrong.
pytestmark = pytest.mark.timeout(900)

HELLO = """\
def handler(payload, context):
    print("greeting", payload["name"])
    return {"hello": payload["name"]}
"""
NAME = "golden"
# Commands that hand on what others made, or go on for ever: tests of their own look at them.
ELSEWHERE = {"call", "code", "dev", "dlq-messages", "migrate", "up"}

Transcript = list[tuple[str, Said]]


class Story:
    """One session with every command, and what each said."""

    def __init__(self, url: str, directory: Path) -> None:
        self.directory = directory
        self.transcripts: dict[str, Transcript] = {}
        self.json: dict[str, str] = {}
        self._app = application()
        self._environment = {
            **{name: None for name in os.environ if name.startswith("FAAS_")},
            "FAAS_SERVER": url,
            "XDG_CONFIG_HOME": str(directory / "config"),
            "COLUMNS": "100",
        }

    def run(self, *arguments: str) -> Said:
        """Run a command within this process: so many would be slow as processes."""
        runner = CliRunner(env=self._environment)
        done = runner.invoke(self._app, list(arguments), prog_name="faas")
        assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
        return Said(done.exit_code, done.stdout, done.stderr)

    def tell(self, name: str, *arguments: str) -> Said:
        """Run a command, and keep what it said under `name`."""
        said = self.run(*arguments)
        shown = "faas " + " ".join(_quoted(argument) for argument in arguments)
        self.transcripts.setdefault(name, []).append((shown, said))
        return said

    def show(self, name: str, *arguments: str, same: bool = True) -> None:
        """Run a command that shows something, in all formats.

        `same`: nothing of it changes between one call and the next.
        """
        self.tell(name, *arguments)
        self.json[name] = said = self.run(*arguments, "-o", "json").out
        read = yaml.safe_load(self.run(*arguments, "-o", "yaml").out)
        if same:
            assert read == json.loads(said)
        else:
            assert _shape(read) == _shape(json.loads(said))


def _quoted(argument: str) -> str:
    return f"'{argument}'" if set(argument) & set(" {}*\"'") else argument


def _shape(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _shape(item) for key, item in value.items()}
    return [_shape(item) for item in value] if isinstance(value, list) else type(value)


@pytest.fixture(scope="module")
def story(platform: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    directory = tmp_path_factory.mktemp("golden")
    before = Path.cwd()
    os.chdir(directory)
    try:
        with faas.Client(platform.url) as client:
            story = Story(platform.url, directory)
            _functions(story)
            _invocations(story, client)
            _end(story, client)
            yield story
    finally:
        os.chdir(before)


def _functions(story: Story) -> None:
    story.tell("init", "init", NAME)
    story.tell("init", "init", NAME)
    (story.directory / NAME / "main.py").write_text(HELLO)
    said = ["--description", "Greets.", "--env", "A=1", "--label", "set=golden"]
    story.tell("deploy", "deploy", NAME, *said, "--dry-run")
    story.tell("deploy", "deploy", NAME, *said)
    story.tell("deploy", "deploy", NAME, *said)
    story.tell("deploy", "deploy", NAME, "--memory", "256", "--env", "B=2", "--timeout", "5s")
    story.tell("deploy", "deploy", NAME, "--memory", "1")
    story.tell("deploy", "deploy", "gone.py")
    only = ["--filter", "labels.set = golden"]
    story.show("ls", "ls", *only)
    story.tell("ls", "ls", *only, "-o", "name")
    story.tell("ls", "ls", "--filter", "labels.set = nothing")
    story.tell("ls", "ls", "--filter", "nope =")
    story.show("get", "get", NAME)
    story.tell("get", "get", "golden-gone")
    story.show("versions", "versions", NAME)
    story.tell("versions", "versions", NAME, "-o", "name")
    story.tell("pause", "pause", NAME)
    story.tell("resume", "resume", NAME)


def _invocations(story: Story, client: faas.Client) -> None:
    story.tell("invoke", "invoke", NAME, '{"name": "Ada"}')
    story.tell("invoke", "invoke", NAME, '{"name": "Ada"}', "-o", "name")
    story.tell("invoke", "invoke", NAME, "{}")
    story.tell("invoke", "invoke", NAME, "{name}")
    story.tell("invoke", "invoke", NAME, '{"name": "Ada"}', "--async")
    failed, completed = _ids(story, client)
    story.tell("logs", "logs", NAME)
    story.tell("logs", "logs", completed, "-o", "json")
    story.tell("logs", "logs", "golden-gone")
    story.show("invocations-ls", "invocations", "ls", "--function", NAME)
    story.tell("invocations-ls", "invocations", "ls", "--function", NAME, "-o", "name")
    story.tell("invocations-ls", "invocations", "ls", "--function", NAME, "--limit", "1")
    story.show("invocations-get", "invocations", "get", completed)
    story.tell("invocations-get", "invocations", "get", failed)
    story.tell("invocations-wait", "invocations", "wait", completed, "-o", "name")
    story.tell("invocations-watch", "invocations", "watch", completed)
    story.tell("invocations-watch", "invocations", "watch", failed)
    story.tell("invocations-cancel", "invocations", "cancel", completed)
    story.tell("invocations-cancel", "invocations", "cancel")
    story.tell("invocations-cancel", "invocations", "cancel", "--function", NAME)
    story.show("invocations-explain", "invocations", "explain", completed)
    story.tell("invocations-compare", "invocations", "compare", completed, failed)
    story.json["invocations-compare"] = story.run(
        *("invocations", "compare", completed, failed, "-o", "json")
    ).out
    story.tell("invocations-replay", "invocations", "replay", completed)

    def counted() -> int:
        return sum(count.count for count in client.stats(NAME).counts)

    wait_until(lambda: counted() == 5, "all are counted", 90)
    story.show("stats", "stats", NAME, same=False)
    story.tell("stats", "stats", "golden-gone")


def _ids(story: Story, client: faas.Client) -> tuple[str, str]:
    for invocation in client.invocations(function_id=NAME):
        invocation.wait()
    (failed,) = client.invocations(function_id=NAME, status="FAILED")
    *_, completed = client.invocations(function_id=NAME, status="COMPLETED")
    return failed.id, completed.id


def _end(story: Story, client: faas.Client) -> None:
    story.tell("dlq-ls", "dlq", "ls", "--function", NAME)
    story.tell("dlq-redrive", "dlq", "redrive")
    story.tell("dlq-redrive", "dlq", "redrive", "--function", NAME, "--status", "failed")
    # Not the same again: what was taken up may have failed meanwhile.
    story.tell("dlq-redrive", "dlq", "redrive", "--function", NAME, "--status", "timed_out")
    said = story.tell("schedules-create", "schedules", "create", NAME, "0 4 * * MON")
    story.tell("schedules-create", "schedules", "create", NAME, "every day")
    schedule = said.out.strip()
    story.show("schedules-ls", "schedules", "ls", "--function", NAME)
    story.show("schedules-get", "schedules", "get", schedule)
    story.tell("schedules-update", "schedules", "update", schedule, "--cron", "@daily")
    story.tell("schedules-pause", "schedules", "pause", schedule)
    story.tell("schedules-resume", "schedules", "resume", schedule)
    story.tell("schedules-rm", "schedules", "rm", schedule)
    story.tell("schedules-rm", "schedules", "rm", schedule)
    worker = next(client.workers()).id
    story.show("workers-ls", "workers", "ls", same=False)
    story.show("workers-get", "workers", "get", worker, same=False)
    story.tell("workers-drain", "workers", "drain", worker, "-o", "name")
    story.tell("workers-resume", "workers", "resume", worker, "-o", "name")
    wait_until(lambda: client.worker(worker).state == 1, "it takes work again")
    story.tell("context-set", "context", "set", "work", "https://faas.example")
    story.tell("context-set", "context", "set", "home", "http://localhost:8080")
    story.tell("context-set", "context", "set", "home", "ftp://localhost")
    story.tell("context-use", "context", "use", "home")
    story.tell("context-use", "context", "use", "nowhere")
    story.show("context-ls", "context", "ls")
    story.tell("context-ls", "context", "ls", "-o", "name")
    story.tell("context-rm", "context", "rm", "work")
    story.tell("rm", "rm", NAME)
    story.tell("rm", "rm", NAME)
    story.tell("rm", "rm", NAME, "--ignore-missing")
    story.tell("doctor", "--server", "http://localhost:port", "doctor")
    story.json["doctor"] = story.run(
        "--server", "http://localhost:port", "doctor", "-o", "json"
    ).out
    nothing = ["--data-dir", str(story.directory / "nothing")]
    story.transcripts["status"] = [("faas status", story.run("status", *nothing))]
    story.transcripts["down"] = [("faas down", story.run("down", *nothing))]


def commands() -> list[str]:
    """All commands there are, those of groups as `group-command`."""
    found = []
    for name, command in get_command(application()).commands.items():  # type: ignore[attr-defined]
        inside: Sequence[str] = getattr(command, "commands", {})
        found += [f"{name}-{one}" for one in inside] or [name]
    return found


@pytest.mark.parametrize("command", sorted(set(commands()) - ELSEWHERE))
def test_a_command_says_what_its_golden_file_says(story: Story, command: str):
    shown = "".join(
        f"$ {line}\n{said.out}{said.err}" + (f"[exit code {said.code}]\n" if said.code else "")
        for line, said in story.transcripts[command]
    )
    assert_golden(f"{command}.txt", shown)
    if command in story.json:
        # A field that the API gained is no fault of the command.
        assert_golden(f"{command}.json", story.json[command], whole=False)


def test_there_is_no_golden_file_of_nothing():
    known = {f"{command}.{kind}" for command in commands() for kind in ("txt", "json")}
    assert {file.name for file in GOLDEN.iterdir()} <= known


def test_every_command_is_told_of(story: Story):
    assert set(story.transcripts) == set(commands()) - ELSEWHERE
