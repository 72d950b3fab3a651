"""The table of hostile functions: what each does, in three languages, and how it must end.

What ends by its time, by its output and by what it sends to the worker means the same
in the process runtime; what ends by a limit of memory, processes or files, and what is
denied, takes a container.
"""

from dataclasses import replace

from faas.v1.invocation_pb2 import Invocation
from tests.conformance import functions
from tests.conformance.functions import go, go_program
from tests.hostile.table import COMPLETED, LANGUAGES, Cannot, Case, End, Table

SECONDS = 1.5
"""What a function gets that would never end."""
TIMEOUT = End(Invocation.TIMEOUT, says="still running after 1.5 s")


def killed(number: int) -> End:
    """Its process died by a signal."""
    return End(Invocation.FUNCTION_CRASHED, 128 + number, "was killed by signal")


# --- Time ----------------------------------------------------------------------------------

SIGTERM_IGNORED = {
    "python": """
import signal, time

def handler(p):
    for number in set(signal.Signals) - {signal.SIGKILL, signal.SIGSTOP}:
        signal.signal(number, signal.SIG_IGN)
    while True:
        time.sleep(60)
""",
    "node": """
exports.handler = () => {
  for (const name of ['SIGTERM', 'SIGINT', 'SIGHUP', 'SIGQUIT', 'SIGUSR2']) {
    process.on(name, () => {});
  }
  return new Promise(() => setInterval(() => {}, 1000));
};
""",
    "go": go("signal.Ignore()\n\tfor {\n\t\ttime.Sleep(time.Minute)\n\t}", "os/signal", "time"),
}
BLOCKED = {
    "python": "import os\n\ndef handler(p):\n    os.read(os.pipe()[0], 1)\n",
    "node": """
const { spawn } = require('child_process');
exports.handler = () => {
  spawn('cat', [], { stdio: ['pipe', 'ignore', 'ignore'] });
  Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0);
};
""",
    "go": go(
        "end, kept, _ := os.Pipe()\n\tend.Read(make([]byte, 1))\n\treturn kept.Name(), nil", "os"
    ),
}
ALL_THREADS = {
    "python": """
import threading

def spin():
    while True:
        pass

def handler(p):
    for _ in range(8):
        threading.Thread(target=spin, daemon=True).start()
    spin()
""",
    "node": """
const { Worker } = require('worker_threads');
exports.handler = () => {
  for (let n = 0; n < 2; n++) new Worker('for (;;);', { eval: true });
  return new Promise(() => setTimeout(() => { for (;;); }, 300));
};
""",
    "go": go(
        "for range [8]int{} {\n\t\tgo func() {\n\t\t\tfor {\n\t\t\t}\n\t\t}()\n\t}\n\tfor {\n\t}"
    ),
}
DAEMONS = {
    "python": """
import os

def handler(p):
    for _ in range(3):
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                os.execve('/bin/sh', ['sh', '-c', 'while :; do :; done'], {})
            os._exit(0)
    os.read(os.pipe()[0], 1)
""",
    "node": """
const { spawn } = require('child_process');
exports.handler = () => {
  const alone = { detached: true, stdio: 'ignore', env: {} };
  for (let n = 0; n < 3; n++) spawn('/bin/sh', ['-c', 'while :; do :; done'], alone).unref();
  return new Promise(() => setInterval(() => {}, 1000));
};
""",
    "go": go(
        "for range [3]int{} {\n"
        '\t\tchild := exec.Command("/bin/sh", "-c", "while :; do :; done")\n'
        "\t\tchild.Env = []string{}\n"
        "\t\tchild.SysProcAttr = &syscall.SysProcAttr{Setsid: true}\n\t\tchild.Start()\n\t}\n"
        "\tfor {\n\t\ttime.Sleep(time.Minute)\n\t}",
        "os/exec",
        "syscall",
        "time",
    ),
}

TIME = Table(
    {
        "an endless loop": Case(functions.BUSY, TIMEOUT, SECONDS),
        "sleep": Case(functions.SLEEP, TIMEOUT, SECONDS),
        "every signal ignored": Case(SIGTERM_IGNORED, TIMEOUT, SECONDS),
        "a hang at import": Case(functions.HANG_AT_IMPORT, TIMEOUT, SECONDS, alone=True),
        "blocked for ever": Case(BLOCKED, TIMEOUT, SECONDS),
        "all threads spinning": Case(ALL_THREADS, TIMEOUT, SECONDS),
        "spinning daemons": Case(DAEMONS, TIMEOUT, SECONDS),
        "a program that sleeps": Case(functions.PROGRAM_SLEEP, TIMEOUT, SECONDS, "main"),
    }
)

# --- Output --------------------------------------------------------------------------------

FLOODED = End(Invocation.FUNCTION_CRASHED, 137, "printed more than")


def flood(stream: str, newline: str) -> dict[str, str]:
    """Ten gigabytes in pieces of a megabyte."""
    number = {"stdout": 1, "stderr": 2}[stream]
    piece = f"x{newline}"
    times = (1 << 20) // len(piece.replace("\\n", "n"))
    return {
        "python": f"import os\n\ndef handler(p):\n    piece = b'{piece}' * {times}\n"
        f"    for _ in range(10000): os.write({number}, piece)\n",
        "node": f"exports.handler = () => {{ const piece = '{piece}'.repeat({times});"
        f" for (let n = 0; n < 10000; n++) process.{stream}.write(piece); }};\n",
        "go": go(
            f'piece := []byte(strings.Repeat("{piece}", {times}))\n'
            f"\tfor range [10000]int{{}} {{\n\t\tos.{stream.title()}.Write(piece)\n\t}}\n"
            "\treturn nil, nil",
            "os",
            "strings",
        ),
    }


def printed(text: str, times: int) -> dict[str, str]:
    """So much and no more, then a result."""
    return {
        "python": f"import sys\n\ndef handler(p):\n    sys.stdout.write('{text}' * {times})\n"
        "    return 'well'\n",
        "node": f"exports.handler = () => {{ process.stdout.write('{text}'.repeat({times}));"
        " return 'well'; };\n",
        "go": go(
            f'os.Stdout.WriteString(strings.Repeat("{text}", {times}))\n\treturn "well", nil',
            "os",
            "strings",
        ),
    }


PROGRAM_FLOOD = {
    "python": "import os\nfor _ in range(10000): os.write(1, b'x' * (1 << 20))\n",
    "node": "const piece = 'x'.repeat(1 << 20);\n"
    "for (let n = 0; n < 10000; n++) require('fs').writeSync(1, piece);\n",
    "go": go_program(
        'piece := []byte(strings.Repeat("x", 1<<20))\n\tfor range [10000]int{} {\n'
        "\t\tos.Stdout.Write(piece)\n\t}",
        "os",
        "strings",
    ),
}
TOO_LARGE = End(Invocation.OUTPUT_TOO_LARGE, says="larger than 1048576 bytes")
WELL = End(COMPLETED)

OUTPUT = Table(
    {
        "10 GB on stdout": Case(flood("stdout", "\\n"), FLOODED, truncates=True),
        "10 GB on stderr": Case(flood("stderr", "\\n"), FLOODED, truncates=True),
        "a line of 10 GB": Case(flood("stdout", ""), FLOODED, truncates=True),
        "10 GB of empty lines": Case(
            flood("stdout", "\\n\\n\\n\\n\\n\\n\\n"), FLOODED, truncates=True
        ),
        "2 MB of log": Case(
            printed("a word and another\\n", 1 << 17), WELL, keeps_sandbox=LANGUAGES, truncates=True
        ),
        "a million empty lines": Case(
            printed("\\n", 1 << 20), WELL, keeps_sandbox=LANGUAGES, truncates=True
        ),
        "what a terminal or a header would obey": Case(
            printed("\\x1b[2J\\x1b]0;title\\x07\\r\\nSet-Cookie: a=b\\r\\n", 1),
            End(COMPLETED, prints="Set-Cookie: a=b"),
            keeps_sandbox=LANGUAGES,
        ),
        "a result over the cap": Case(functions.HUGE, TOO_LARGE),
        "bytes over the cap": Case(functions.HUGE_RAW, TOO_LARGE),
        "a program that prints 10 GB": Case(PROGRAM_FLOOD, TOO_LARGE, handler="main"),
    }
)

# --- What it sends to the worker -----------------------------------------------------------


def bad_output(says: str = "") -> End:
    """Its result, or what it sent in its place, cannot be read."""
    return End(Invocation.BAD_OUTPUT, says=says)


PROGRAM_BYTES = {
    "python": "import os\nos.write(1, b'\"\\xff\\xfe\"')\n",
    "node": "process.stdout.write(Buffer.from([34, 255, 254, 34]));\n",
    "go": go_program("os.Stdout.Write([]byte{34, 255, 254, 34})", "os"),
}
NO_TEXT = {
    "python": "def handler(p):\n    return '\\ud800'\n",
    "node": "exports.handler = () => '\\ud800';\n",
    "go": go('return json.RawMessage("\\"\\xff\\xfe\\""), nil'),
}
BROKEN_JSON = {
    "python": "def handler(p, c):\n    c.result_type = 'application/json'\n"
    "    return b'{\"a\": [1, 2'\n",
    "node": "exports.handler = (p, c) => { c.resultType = 'application/json';"
    " return Buffer.from('{\"a\": [1, 2'); };\n",
    "go": go('return json.RawMessage(`{"a": [1, 2`), nil'),
}
DEEP = {
    "python": "def handler(p):\n    value = 1\n    for _ in range(500): value = [value]\n"
    "    return value\n",
    "node": "exports.handler = () => { let value = 1;"
    " for (let n = 0; n < 500; n++) value = [value]; return value; };\n",
    "go": go(
        "var value any = 1\n\tfor range [500]int{} {\n\t\tvalue = []any{value}\n\t}\n"
        "\treturn value, nil"
    ),
}


def sent(header: str, body: str = "", claimed_bytes: int | None = None) -> dict[str, str]:
    """A frame of its own on the worker's connection, and then the shim's.

    With `claimed_bytes` it says that its body is so long, and sends a gigabyte of it.
    """
    length = len(body) if claimed_bytes is None else claimed_bytes
    pieces = 0 if claimed_bytes is None else min(claimed_bytes >> 20, 1024)
    return on_connection(
        python=f"    header, body = {header!r}.encode(), {body!r}.encode()\n"
        f"    os.write(fd, struct.pack('>II', len(header), {length}) + header + body)\n"
        f"    for _ in range({pieces}): os.write(fd, b'x' * (1 << 20))\n",
        node="  const lengths = Buffer.alloc(8);\n"
        f"  const header = Buffer.from({header!r});\n"
        "  lengths.writeUInt32BE(header.length, 0);\n"
        f"  lengths.writeUInt32BE({length}, 4);\n"
        f"  write(fd, Buffer.concat([lengths, header, Buffer.from({body!r})]));\n"
        f"  for (let n = 0; n < {pieces}; n++) write(fd, Buffer.alloc(1 << 20, 'x'));\n",
        go=f"\t\theader := []byte(`{header}`)\n"
        "\t\tframe := binary.BigEndian.AppendUint32(nil, uint32(len(header)))\n"
        f"\t\tframe = binary.BigEndian.AppendUint32(frame, {length})\n"
        f"\t\tsyscall.Write(fd, append(append(frame, header...), `{body}`...))\n"
        f"\t\tfor n := 0; n < {pieces}; n++ {{\n"
        "\t\t\tsyscall.Write(fd, make([]byte, 1<<20))\n\t\t}\n",
        imports=("encoding/binary",),
    )


def on_connection(
    *, python: str, node: str, go: str, imports: tuple[str, ...] = ()
) -> dict[str, str]:
    """Something done to every socket of the process, `fd`; the worker's is among them.

    With a payload it does nothing but answer it.
    """
    return {
        "python": "import os, struct\n\ndef sockets():\n"
        "    for name in os.listdir('/proc/self/fd'):\n"
        "        try:\n"
        "            if os.readlink(f'/proc/self/fd/{name}').startswith('socket:'):\n"
        "                yield int(name)\n"
        "        except OSError:\n            continue\n\n"
        "def attack(fd):\n" + python + "\ndef handler(p):\n"
        "    for fd in list(sockets()) if p is None else []: attack(fd)\n    return p\n",
        "node": """
const fs = require('fs');
function write(fd, piece) {
  for (let at = 0; at < piece.length;) {
    try {
      at += fs.writeSync(fd, piece, at);
    } catch (error) {
      if (error.code !== 'EAGAIN') throw error;
    }
  }
}
function isSocket(name) {
  try {
    return fs.readlinkSync(`/proc/self/fd/${name}`).startsWith('socket:');
  } catch {
    return false;
  }
}
function attack(fd) {
"""
        + node
        + "}\nexports.handler = (p) => {\n"
        "  const names = p === null ? fs.readdirSync('/proc/self/fd').filter(isSocket) : [];\n"
        "  for (const name of names) attack(Number(name));\n  return p;\n};\n",
        "go": functions.go(
            'entries, _ := os.ReadDir("/proc/self/fd")\n\tif string(payload) != "null" {\n'
            "\t\treturn payload, nil\n\t}\n\tfor _, entry := range entries {\n"
            '\t\ttarget, _ := os.Readlink("/proc/self/fd/" + entry.Name())\n'
            '\t\tif !strings.HasPrefix(target, "socket:") {\n\t\t\tcontinue\n\t\t}\n'
            "\t\tfd, _ := strconv.Atoi(entry.Name())\n" + go + "\t}\n\treturn payload, nil",
            "os",
            "strconv",
            "strings",
            "syscall",
            *imports,
        ),
    }


GARBAGE = on_connection(
    python="    os.write(fd, b'\\xff' * 4096)\n",
    node="  write(fd, Buffer.alloc(4096, 255));\n",
    go='\t\tsyscall.Write(fd, []byte(strings.Repeat("\\xff", 4096)))\n',
)
CLOSED = on_connection(
    python="    os.close(fd)\n",
    node="  fs.closeSync(fd);\n",
    go="\t\tsyscall.Close(fd)\n",
)

FRAMES = Table(
    {
        "a program's bytes that are no text": Case(
            PROGRAM_BYTES, bad_output("UTF-8"), handler="main"
        ),
        "a result that is no text": Case(NO_TEXT, bad_output()),
        "a result that is no number": Case(functions.NOT_JSON, bad_output("not JSON")),
        "a result that is broken JSON": Case(BROKEN_JSON, bad_output("not JSON")),
        "a result 500 deep": Case(DEEP, bad_output("deep")),
        "garbage in place of frames": Case(GARBAGE, bad_output("a header of 4294967295 bytes")),
        "a frame without a type": Case(sent('{"result": 1}'), bad_output("with a type")),
        "a frame of an unknown type": Case(sent('{"type": "loaded"}'), bad_output("no result")),
        "a forged result that is no JSON": Case(
            sent('{"type": "result"}', "{no}"), bad_output("not JSON")
        ),
        "a forged error of the platform's": Case(
            sent('{"type": "error", "code": "WORKER_LOST"}'), bad_output("no known code")
        ),
        "a frame of 4 GB": Case(
            sent('{"type": "result"}', claimed_bytes=(1 << 32) - 1),
            bad_output("a body of 4294967295 bytes"),
        ),
        "a frame of 16 MB": Case(sent('{"type": "result"}', claimed_bytes=1 << 24), TOO_LARGE),
        "the connection closed": Case(CLOSED, bad_output("closed its connection")),
    }
)

FORGED = sent('{"type": "result"}', '"forged"')
"""Answers null twice: with what it forged, and with what its shim sends."""

FLOOD_AFTERWARDS = {
    "python": """
import os, threading

def flood():
    while True:
        os.write(1, b"x" * 65536)

def handler(p):
    if p is None:
        threading.Thread(target=flood, daemon=True).start()
    return p
""",
    "node": """
const { Worker } = require('worker_threads');
const flood = "const { writeSync } = require('fs'); const piece = 'x'.repeat(65536);"
  + " for (;;) { try { writeSync(1, piece); } catch {} }";
exports.handler = (p) => {
  if (p === null) new Worker(flood, { eval: true });
  return p;
};
""",
    "go": go(
        'if string(payload) == "null" {\n\t\tgo func() {\n\t\t\tfor {\n'
        "\t\t\t\tos.Stdout.Write(make([]byte, 65536))\n\t\t\t}\n\t\t}()\n\t}\n"
        "\treturn payload, nil",
        "os",
    ),
}
"""Goes on printing when it has answered null."""

# --- Limits: containers only ---------------------------------------------------------------

NO_MEMORY = End(Invocation.OUT_OF_MEMORY, 137, "128 MiB of memory were used up")
NO_SPACE = End(Invocation.FUNCTION_ERROR, says="space left on device")
BOMB = {
    "python": "import gzip\n\nMEMBER = gzip.compress(bytes(1 << 20))\n\ndef handler(p):\n"
    "    return len(gzip.decompress(MEMBER * 1024))\n",
    "node": "const zlib = require('zlib');\n"
    "const member = zlib.gzipSync(Buffer.alloc(1 << 20));\n"
    "exports.handler = () => zlib.gunzipSync(Buffer.concat(Array(1024).fill(member))).length;\n",
    "go": go(
        "var member bytes.Buffer\n\twriter := gzip.NewWriter(&member)\n"
        "\twriter.Write(make([]byte, 1<<20))\n\twriter.Close()\n"
        "\treader, err := gzip.NewReader(bytes.NewReader(bytes.Repeat(member.Bytes(), 1024)))\n"
        "\tif err != nil {\n\t\treturn nil, err\n\t}\n"
        "\tall, err := io.ReadAll(reader)\n\treturn len(all), err",
        "bytes",
        "compress/gzip",
        "io",
    ),
}
FULL_TMP = {
    "python": "def handler(p):\n    with open('/tmp/full', 'wb', 0) as file:\n"
    "        while True: file.write(bytes(1 << 20))\n",
    "node": "const fs = require('fs');\nexports.handler = () => {"
    " const file = fs.openSync('/tmp/full', 'w');"
    " for (;;) fs.writeSync(file, Buffer.alloc(1 << 20)); };\n",
    "go": go(
        'file, err := os.Create("/tmp/full")\n\tfor err == nil {\n'
        "\t\t_, err = file.Write(make([]byte, 1<<20))\n\t}\n\treturn nil, err",
        "os",
    ),
}
MANY_FILES = {
    "python": "import itertools\n\ndef handler(p):\n"
    "    for n in itertools.count(): open(f'/tmp/{n}', 'w').close()\n",
    "node": "const fs = require('fs');\nexports.handler = () => {"
    " for (let n = 0; ; n++) fs.closeSync(fs.openSync(`/tmp/${n}`, 'w')); };\n",
    "go": go(
        'for n := 0; ; n++ {\n\t\tfile, err := os.Create(fmt.Sprint("/tmp/", n))\n'
        "\t\tif err != nil {\n\t\t\treturn nil, err\n\t\t}\n\t\tfile.Close()\n\t}",
        "fmt",
        "os",
    ),
}
# The shell says that it cannot, and its parent says what it said.
SHELL_BOMB = "while :; do sleep 60 >/dev/null 2>&1 & done"
FORK_BOMB = {
    "python": "import os\n\ndef handler(p):\n    while True: os.fork()\n",
    "node": "const { spawnSync } = require('child_process');\nexports.handler = () => {"
    f" throw new Error(spawnSync('sh', ['-c', '{SHELL_BOMB}'],"
    " { stdio: ['ignore', 'ignore', 'pipe'] }).stderr); };\n",
    "go": go(
        f'said, _ := exec.Command("sh", "-c", "{SHELL_BOMB}").CombinedOutput()'
        "\n\treturn nil, errors.New(string(said))",
        "errors",
        "os/exec",
    ),
}
MANY_THREADS = {
    "python": "import threading, time\n\ndef handler(p):\n    for _ in range(100_000):\n"
    "        threading.Thread(target=time.sleep, args=(60,), daemon=True).start()\n",
    "node": Cannot("a thread of Node is an engine of its own: memory ends long before threads"),
    "go": go(
        "for range [100000]int{} {\n\t\tgo func() {\n\t\t\truntime.LockOSThread()\n"
        "\t\t\ttime.Sleep(time.Minute)\n\t\t}()\n\t}\n\ttime.Sleep(time.Minute)\n"
        "\treturn nil, nil",
        "runtime",
        "time",
    ),
}
MANY_DESCRIPTORS = {
    "python": "import os\n\ndef handler(p):\n    while True: os.open('/dev/null', os.O_RDONLY)\n",
    "node": "const fs = require('fs');\n"
    "exports.handler = () => { for (;;) fs.openSync('/dev/null'); };\n",
    "go": go(
        'for {\n\t\tif _, err := os.Open("/dev/null"); err != nil {\n'
        "\t\t\treturn nil, err\n\t\t}\n\t}",
        "os",
    ),
}
EXIT_137 = {language: source.replace("7", "137") for language, source in functions.EXIT.items()}
SEGFAULT = {
    "python": "import os, signal\n\ndef handler(p):\n    os.kill(os.getpid(), signal.SIGSEGV)\n"
    "    signal.pause()\n",
    "node": "exports.handler = async () => { process.kill(process.pid, 'SIGSEGV');"
    " await new Promise(() => setInterval(() => {}, 1000)); };\n",
    "go": go(
        "address := uintptr(len(payload)) << 40\n\treturn *(*int)(unsafe.Pointer(address)), nil",
        "unsafe",
    ),
}
KILL_INIT = {
    "python": "import os, signal\n\ndef handler(p):\n    os.kill(1, signal.SIGKILL)\n"
    "    os.kill(1, signal.SIGTERM)\n    signal.pause()\n",
    "node": "exports.handler = async () => { process.kill(1, 'SIGKILL');"
    " process.kill(1, 'SIGTERM');"
    " await new Promise(() => setInterval(() => {}, 1000)); };\n",
    "go": go(
        "syscall.Kill(1, syscall.SIGKILL)\n\tsyscall.Kill(1, syscall.SIGTERM)\n"
        "\ttime.Sleep(time.Minute)\n\treturn nil, nil",
        "syscall",
        "time",
    ),
}
STDIN = {
    "python": "import sys\n\ndef handler(p):\n    return sys.stdin.read()\n",
    "node": "exports.handler = () => require('fs').readFileSync(0, 'utf8');\n",
    "go": go(
        "all, err := io.ReadAll(os.Stdin)\n\treturn string(all), err",
        "io",
        "os",
    ),
}


def failed(says: str) -> End:
    """It raised."""
    return End(Invocation.FUNCTION_ERROR, says=says)


GO_DIES = End(Invocation.FUNCTION_CRASHED, 2, "exited with code 2")

LIMITS = Table(
    {
        "a memory hog": Case(functions.MEMORY, NO_MEMORY),
        "a decompression bomb": Case(BOMB, NO_MEMORY),
        "a full /tmp": Case(FULL_TMP, NO_SPACE, keeps_sandbox=LANGUAGES),
        "more files than /tmp takes": Case(MANY_FILES, NO_SPACE, keeps_sandbox=LANGUAGES),
        "a fork bomb": Case(
            FORK_BOMB,
            {
                "python": failed("Resource temporarily unavailable"),
                "node": failed("can't fork"),
                "go": failed("can't fork"),
            },
        ),
        "100,000 threads": Case(
            MANY_THREADS,
            {
                "python": failed("can't start new thread"),
                "go": replace(GO_DIES, prints="failed to create new OS thread"),
            },
            keeps_sandbox=("python",),
            truncates=None,
        ),
        "all descriptors": Case(
            MANY_DESCRIPTORS, failed("oo many open files"), keeps_sandbox=LANGUAGES
        ),
        "an exception": Case(functions.RAISE, failed("lost"), keeps_sandbox=LANGUAGES),
        "exit with 137": Case(EXIT_137, killed(9)),
        "a segmentation fault": Case(
            SEGFAULT,
            {
                "python": killed(11),
                "node": killed(11),
                "go": replace(GO_DIES, prints="fault"),
            },
        ),
        "a syntax error": Case(functions.BROKEN, failed(""), alone=True),
        "its init killed": Case(KILL_INIT, killed(15)),
        # It is at its end at once, so nothing can be blocked on it.
        "reading stdin": Case(STDIN, WELL, keeps_sandbox=LANGUAGES),
    }
)
