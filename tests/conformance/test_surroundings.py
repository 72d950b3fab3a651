"""What a function finds around it, and what it can do to it: nothing that outlives it."""

import json
import time
from pathlib import Path

import pytest

from faas.v1.invocation_pb2 import Invocation
from services.worker.output import MAX_LINE_BYTES
from services.worker.runtime import Stream
from tests.conformance import functions
from tests.conformance.conftest import LIMITS, Bench
from tests.conformance.functions import go
from tests.conformance.test_contract import running_in

LANGUAGES = ["python", "node", "go"]
CONTEXT = {
    "python": "def handler(p, c):\n"
    "    return [c.invocation_id, c.function_id, c.function_name, c.function_version, c.attempt,"
    " c.traceparent, c.deadline, c.remaining_s()]\n",
    "node": "exports.handler = (p, c) => [c.invocationId, c.functionId, c.functionName,"
    " c.functionVersion, c.attempt, c.traceparent, c.deadline, c.remainingMs() / 1000];\n",
    "go": go(
        'number := func(name string) float64 {\n\t\tn, _ := strconv.ParseFloat(os.Getenv("FAAS_"'
        "+name), 64)\n\t\treturn n\n\t}\n\tdeadline, _ := ctx.Deadline()\n"
        '\treturn []any{os.Getenv("FAAS_INVOCATION_ID"), os.Getenv("FAAS_FUNCTION_ID"),\n'
        '\t\tos.Getenv("FAAS_FUNCTION_NAME"), number("FUNCTION_VERSION"), number("ATTEMPT"),\n'
        '\t\tos.Getenv("FAAS_TRACEPARENT"), number("DEADLINE"),'
        " time.Until(deadline).Seconds()}, nil",
        "os",
        "strconv",
        "time",
    ),
}


@pytest.mark.parametrize("language", LANGUAGES)
async def test_the_context(bench: Bench, language: str) -> None:
    spec = bench.spec(language, CONTEXT[language])
    before = time.time()
    ran = await bench.run(spec, timeout_s=60)
    assert ran.verdict.failure is None
    *known, deadline, remaining_s = json.loads(ran.verdict.result)
    assert known == ["inv-1", spec.function_id, "tried", 3, 2, "00-a-b-01"]
    assert before < deadline - 60 < time.time()
    assert 0 < remaining_s <= 60


PLACES = {
    "python": "import os, tempfile\ndef handler(p):\n"
    "    with tempfile.TemporaryFile() as f: f.write(b'x' * 1000)\n"
    "    return sorted(os.listdir('.')) + [open('data/words.txt').read()]\n",
    "node": "const fs = require('fs');\nconst path = require('path');\nconst os = require('os');\n"
    "exports.handler = () => { fs.writeFileSync(path.join(os.tmpdir(), 'x'), 'x');"
    " return [...fs.readdirSync('.').sort(), fs.readFileSync('data/words.txt', 'utf8')]; };\n",
    "go": go(
        'file, err := os.CreateTemp("", "x")\n\tif err != nil {\n\t\treturn nil, err\n\t}\n'
        '\tfile.Close()\n\tfound := []string{}\n\tentries, err := os.ReadDir(".")\n'
        "\tfor _, entry := range entries {\n\t\tfound = append(found, entry.Name())\n\t}\n"
        '\ttext, err := os.ReadFile("data/words.txt")\n\treturn append(found, string(text)), err',
        "os",
    ),
}


@pytest.mark.parametrize("language", LANGUAGES)
async def test_it_is_where_its_code_is_and_has_a_temporary_directory(
    bench: Bench, language: str
) -> None:
    main = {"python": "main.py", "node": "main.js", "go": "main.go"}[language]
    files = {main: PLACES[language], "data/words.txt": "words"}
    ran = await bench.run(bench.spec(language, files))
    assert ran.verdict.failure is None, ran
    assert json.loads(ran.verdict.result) == ["data", main, "words"]


SIGNATURES = {
    "python, any": ("python", "def handler(*args):\n    return len(args)\n", 2),
    "python, default": ("python", "def handler(p, c=None):\n    return c is not None\n", True),
    "python, keywords": ("python", "def handler(p, *, k=1):\n    return k\n", 1),
    "python, object": (
        "python",
        "class H:\n    def __call__(self, p):\n        return 'called'\n\nhandler = H()\n",
        "called",
    ),
    "python, partial": (
        "python",
        "import functools\n\ndef two(p, c):\n    return c.attempt\n\n"
        "handler = functools.partial(two)\n",
        2,
    ),
    "node, one": ("node", "exports.handler = function (p) { return arguments.length; };\n", 1),
    "node, rest": ("node", "exports.handler = (...all) => all.length;\n", 2),
    "node, none": ("node", "exports.handler = () => undefined;\n", None),
    "node, top-level await": (
        "node",
        "const two = await Promise.resolve(2);\nexport const handler = () => two;\n",
        2,
    ),
    "node, default": ("node", "module.exports = { handler: () => 'default' };\n", "default"),
}


@pytest.mark.parametrize(("language", "source", "result"), SIGNATURES.values(), ids=SIGNATURES)
async def test_handlers_of_many_kinds(
    bench: Bench, language: str, source: str, result: object
) -> None:
    ran = await bench.run(bench.spec(language, source))
    assert ran.verdict.failure is None, ran
    assert json.loads(ran.verdict.result) == result


async def test_an_error_says_what_caused_it(bench: Bench) -> None:
    source = (
        "def inner():\n    return {}['key']\n\ndef handler(p):\n    try:\n        inner()\n"
        "    except KeyError as error:\n        raise ValueError('outer') from error\n"
    )
    failure = (await bench.run(bench.spec("python", source))).verdict.failure
    assert failure is not None
    assert (failure.type, failure.message) == ("ValueError", "outer")
    assert failure.stack.index("KeyError: 'key'") < failure.stack.index("ValueError: outer")


BROKEN_AT = {"python": "main.py", "node": "main.js:", "go": "main.go:3"}


@pytest.mark.parametrize("language", LANGUAGES)
async def test_code_that_does_not_parse_says_where(bench: Bench, language: str) -> None:
    failure = (await bench.run(bench.spec(language, functions.BROKEN[language]))).verdict.failure
    assert failure is not None
    assert failure.code == Invocation.FUNCTION_ERROR
    assert BROKEN_AT[language] in failure.message + failure.stack


ANY_BYTES = {
    "python": "import sys\ndef handler(p):\n    sys.stdout.buffer.write(b'a\\xff\\x00b\\n')\n"
    "    return 'well'\n",
    "node": "exports.handler = () => { process.stdout.write(Buffer.from([97, 255, 0, 98, 10]));"
    " return 'well'; };\n",
    "go": go("os.Stdout.Write([]byte{97, 255, 0, 98, 10})\n\treturn `well`, nil", "os"),
}
CLOSED = {
    "python": "import os\ndef handler(p):\n    print('before', flush=True)\n    os.close(1)\n"
    "    os.close(2)\n    return 'well'\n",
    "node": "const fs = require('fs');\nexports.handler = () => { console.log('before');"
    " fs.closeSync(1); fs.closeSync(2); return 'well'; };\n",
    "go": go(
        'fmt.Println("before")\n\tos.Stdout.Close()\n\tos.Stderr.Close()\n\treturn `well`, nil',
        "fmt",
        "os",
    ),
}
ONE_LINE = {
    "python": "def handler(p):\n    print('é' * 1_000_000)\n    return 'well'\n",
    "node": "exports.handler = () => { console.log('é'.repeat(1000000)); return 'well'; };\n",
    "go": go('fmt.Println(strings.Repeat("é", 1000000))\n\treturn `well`, nil', "fmt", "strings"),
}


@pytest.mark.parametrize("language", LANGUAGES)
async def test_any_bytes_are_log(bench: Bench, language: str) -> None:
    ran = await bench.run(bench.spec(language, ANY_BYTES[language]))
    assert (ran.verdict.failure, ran.verdict.result) == (None, b'"well"')
    assert ran.texts == ["a\ufffd\ufffdb"]


@pytest.mark.parametrize("language", LANGUAGES)
async def test_closing_its_output_is_its_own_affair(bench: Bench, language: str) -> None:
    ran = await bench.run(bench.spec(language, CLOSED[language]))
    assert (ran.verdict.failure, ran.verdict.result) == (None, b'"well"')
    assert ran.texts == ["before"]


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_line_without_an_end(bench: Bench, language: str) -> None:
    ran = await bench.run(bench.spec(language, ONE_LINE[language]))
    assert (ran.verdict.failure, ran.verdict.result) == (None, b'"well"')
    assert ran.verdict.logs_truncated
    text = "".join(ran.texts)
    assert set(text) == {"é"}
    assert len(text.encode()) <= LIMITS.log_bytes
    assert all(len(line.encode()) <= MAX_LINE_BYTES for line in ran.texts)


FORGED = (
    "import json, os, struct\n"
    'header = json.dumps({"type": "result"}).encode()\n'
    "frame = struct.pack('>II', len(header), 8) + header + b'\"forged\"'\n"
)


async def test_a_printed_frame_is_log(bench: Bench) -> None:
    source = FORGED + "def handler(p):\n    os.write(1, frame + b'\\n')\n    return 'true'\n"
    ran = await bench.run(bench.spec("python", source))
    assert (ran.verdict.failure, ran.verdict.result) == (None, b'"true"')
    assert any("forged" in line.text for line in ran.lines if line.stream is Stream.STDOUT)


@pytest.mark.parametrize("sent", ["frame", "b'noise' * 100", "struct.pack('>II', 1 << 31, 0)"])
async def test_what_forces_its_way_to_the_socket_spoils_itself_alone(
    bench: Bench, sent: str
) -> None:
    source = FORGED + (
        "def handler(p):\n    for fd in range(3, 64):\n        try:\n"
        f"            os.write(fd, {sent})\n        except OSError:\n            pass\n"
        "    return 'true'\n"
    )
    ran = await bench.run(bench.spec("python", source))
    codes = (Invocation.BAD_OUTPUT, Invocation.FUNCTION_CRASHED)
    assert ran.verdict.failure is None or ran.verdict.failure.code in codes
    after = await bench.run(bench.spec("python", functions.ECHO["python"]), b"1")
    assert (after.verdict.failure, after.verdict.result) == (None, b"1")


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_payload_too_large_for_a_variable_is_in_the_file(
    bench: Bench, language: str
) -> None:
    spec = bench.spec(language, functions.PROGRAM_FILE[language], "main")
    for size, in_variable in ((120 * 1024, True), (120 * 1024 + 1, False)):
        payload = b'"' + b"x" * (size - 2) + b'"'
        ran = await bench.run(spec, payload)
        assert ran.verdict.failure is None, ran
        assert json.loads(ran.verdict.result) == f"{in_variable}\n{payload.hex()}"


LEFT_BEHIND = {
    "python": "import subprocess, sys\ndef handler(p):\n"
    "    subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(300)'],"
    " start_new_session=True, env={})\n    return 'left'\n",
    "node": "exports.handler = () => { require('child_process').spawn(process.execPath,"
    " ['-e', 'setTimeout(() => {}, 300000)'], { detached: true, stdio: 'ignore', env: {} })"
    ".unref(); return 'left'; };\n",
}


@pytest.mark.parametrize("language", LEFT_BEHIND)
async def test_what_it_leaves_behind_is_killed(bench: Bench, language: str) -> None:
    spec = bench.spec(language, LEFT_BEHIND[language])
    ran = await bench.run(spec)
    assert (ran.verdict.failure, ran.verdict.result) == (None, b'"left"')
    assert not running_in(spec.code_dir)


async def test_code_is_not_written_to_by_running_it(bench: Bench) -> None:
    spec = bench.spec(
        "python",
        {"main.py": "import other\nhandler = other.f\n", "other.py": "def f(p):\n    return 1\n"},
    )
    assert (await bench.run(spec)).verdict.failure is None
    left = sorted(path.relative_to(spec.code_dir) for path in spec.code_dir.rglob("*"))
    assert left == [Path("main.py"), Path("other.py")]
