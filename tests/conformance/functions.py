"""The functions of the suite: what each does, in three languages."""

GO = """package main

import (
	"context"
	"encoding/json"
	{imports}
)

func Handler(ctx context.Context, payload json.RawMessage) (any, error) {{
	{body}
}}
"""


def go(body: str, *imports: str) -> str:
    """A handler in Go with this body."""
    return GO.format(body=body, imports="\n\t".join(f'"{name}"' for name in imports))


def go_program(body: str, *imports: str) -> str:
    """A program in Go with this body."""
    lines = "\n".join(f'\t"{name}"' for name in imports)
    return f"package main\n\nimport (\n{lines}\n)\n\nfunc main() {{\n\t{body}\n}}\n"


ECHO = {
    "python": "def handler(payload):\n    return payload\n",
    "node": "exports.handler = (payload) => payload;\n",
    "go": go("return payload, nil"),
}
ASYNC = {
    "python": "import asyncio\nasync def handler(p, c):\n"
    "    await asyncio.sleep(0)\n    return p\n",
    "node": "export const handler = async (payload, context) => payload;\n",
}
RAISE = {
    "python": "def inner():\n    raise LookupError('lost')\n\ndef handler(p, c):\n    inner()\n",
    "node": "function inner() {\n  throw new RangeError('lost');\n}\n"
    "exports.handler = (p, c) => {\n  inner();\n};\n",
    "go": go('panic(errors.New("lost"))', "errors"),
}
RAISED = {
    "python": ("LookupError", ["main.py", "inner", "handler"]),
    "node": ("RangeError", ["main.js:2", "inner"]),
    "go": ("*errors.errorString", ["main.go:"]),
}
LONG_ERROR = {
    "python": "def handler(p, c):\n    raise ValueError(p * 20000)\n",
    "node": "exports.handler = (p, c) => {\n  throw new Error(p.repeat(20000));\n};\n",
    "go": go(
        "var text string\n\tjson.Unmarshal(payload, &text)\n\t"
        "return nil, errors.New(strings.Repeat(text, 20000))",
        "errors",
        "strings",
    ),
}
BROKEN = {
    "python": "def handler(:\n",
    "node": "exports.handler = (;\n",
    "go": "package main\n\nfunc Handler( {\n",
}
MISSING = {
    "python": "x = 1\n",
    "node": "exports.x = 1;\n",
    "go": "package main\n\nvar X = 1\n",
}
NOT_JSON = {
    "python": "def handler(p):\n    return float('nan')\n",
    "node": "exports.handler = (p) => NaN;\n",
    "go": go("return math.NaN(), nil", "math"),
}
HUGE = {
    "python": "def handler(p):\n    return 'x' * (1 << 20)\n",
    "node": "exports.handler = (p) => 'x'.repeat(1 << 20);\n",
    "go": go('return strings.Repeat("x", 1<<20), nil', "strings"),
}
EXIT = {
    "python": "import os\ndef handler(p):\n    os._exit(7)\n",
    "node": "exports.handler = (p) => process.exit(7);\n",
    "go": go("os.Exit(7)\n\treturn nil, nil", "os"),
}
SIGNAL = {
    "python": "import os, signal\ndef handler(p):\n    os.kill(os.getpid(), signal.SIGKILL)\n",
    "node": "exports.handler = async (p) => { process.kill(process.pid, 'SIGKILL');"
    " await new Promise(() => {}); };\n",
    "go": go("syscall.Kill(os.Getpid(), syscall.SIGKILL)\n\tselect {}", "os", "syscall"),
}
SLEEP = {
    "python": "import time\ndef handler(p):\n    print('in', flush=True)\n    time.sleep(60)\n",
    "node": "exports.handler = async () => { console.log('in');"
    " await new Promise((r) => setTimeout(r, 60000)); };\n",
    "go": go('fmt.Println("in")\n\ttime.Sleep(time.Minute)\n\treturn nil, nil', "fmt", "time"),
}
BUSY = {
    "python": "def handler(p):\n    while True: pass\n",
    "node": "exports.handler = () => { for (;;); };\n",
    "go": go("for {\n\t}"),
}
HANG_AT_IMPORT = {
    "python": "while True: pass\n",
    "node": "for (;;);\n",
    "go": go("return wait, nil") + "\nvar wait = func() int { for { } }()\n",
}
MEMORY = {
    "python": "def handler(p):\n    kept = []\n    while True: kept.append(b'x' * (1 << 20))\n",
    "node": "exports.handler = (p) => { const kept = [];"
    " for (;;) kept.push(Buffer.alloc(1 << 20, 1)); };\n",
    "go": go(
        "var kept [][]byte\n\tfor {\n"
        '\t\tkept = append(kept, bytes.Repeat([]byte("x"), 1<<20))\n\t}',
        "bytes",
    ),
}
HEAP = {
    "node": "exports.handler = (p) => { const kept = [];"
    " for (;;) kept.push(new Array(1000).fill(0.5)); };\n",
}
PRINT = {
    "python": "import sys\ndef handler(p):\n    print('one')\n    print('two')\n"
    "    print('err', file=sys.stderr)\n",
    "node": "exports.handler = (p) => { console.log('one'); console.log('two');"
    " console.error('err'); };\n",
    "go": go(
        'fmt.Println("one")\n\tfmt.Println("two")\n\tfmt.Fprintln(os.Stderr, "err")\n'
        "\treturn nil, nil",
        "fmt",
        "os",
    ),
}
FLOOD = {
    "python": "def handler(p):\n    while True: print('x' * 1000)\n",
    "node": "exports.handler = (p) => { for (;;) console.log('x'.repeat(1000)); };\n",
    "go": go('for {\n\t\tfmt.Println(strings.Repeat("x", 1000))\n\t}', "fmt", "strings"),
}
VARIABLES = {
    "python": "import os\nAT_IMPORT = os.environ['KEY']\ndef handler(p, c):\n"
    "    return [AT_IMPORT, os.environ['FAAS_ATTEMPT'], os.environ['FAAS_FUNCTION_NAME'],"
    " os.environ.get('SECRET_OF_THE_WORKER'), os.environ['FAAS_TRACEPARENT']]\n",
    "node": "const atImport = process.env.KEY;\nconst e = process.env;\n"
    "exports.handler = (p, c) => [atImport, e.FAAS_ATTEMPT, e.FAAS_FUNCTION_NAME,"
    " e.SECRET_OF_THE_WORKER ?? null, e.FAAS_TRACEPARENT];\n",
    "go": go(
        'return []any{atImport, os.Getenv("FAAS_ATTEMPT"), os.Getenv("FAAS_FUNCTION_NAME"),\n'
        '\t\tvalue("SECRET_OF_THE_WORKER"), os.Getenv("FAAS_TRACEPARENT")}, nil',
        "os",
    )
    + '\nvar atImport = os.Getenv("KEY")\n\nfunc value(name string) any {\n'
    "\tif v, ok := os.LookupEnv(name); ok {\n\t\treturn v\n\t}\n\treturn nil\n}\n",
}
RAW = {
    "python": "def handler(p):\n    assert type(p) is bytes\n    return p\n",
    "node": "exports.handler = (p) => { if (!Buffer.isBuffer(p)) throw 1; return p; };\n",
    "go": go("return []byte(payload), nil"),
}
# Answers its payload's bytes as what its own type was, in capital letters.
TYPED = {
    "python": "import os\ndef handler(p, c):\n"
    "    assert os.environ['FAAS_PAYLOAD_TYPE'] == c.payload_type\n"
    "    c.result_type = 'text/x-' + c.payload_type.upper().replace('/', '.')\n"
    "    return p.decode()\n",
    "node": "exports.handler = (p, c) => {\n"
    "  if (process.env.FAAS_PAYLOAD_TYPE !== c.payloadType) throw 1;\n"
    "  c.resultType = 'text/x-' + c.payloadType.toUpperCase().replace('/', '.');\n"
    "  return p.toString();\n};\n",
    "go": go("return Typed(payload), nil", "os", "strings")
    + "\ntype Typed string\n\nfunc (Typed) ContentType() string {\n"
    '\treturn "text/x-" + strings.ReplaceAll(strings.ToUpper('
    'os.Getenv("FAAS_PAYLOAD_TYPE")), "/", ".")\n}\n',
}
PROBLEM = {
    "python": "def handler(p, c):\n    c.result_type = 'application/problem+json'\n"
    "    return {'n': 2**70}\n",
    "node": "exports.handler = (p, c) => { c.resultType = 'application/problem+json';"
    " return {n: 1}; };\n",
    "go": go('return Problem(`{"n": 1180591620717411303424}`), nil')
    + "\ntype Problem []byte\n\nfunc (Problem) ContentType() string {\n"
    '\treturn "application/problem+json"\n}\n',
}
NO_TYPE = {
    "python": "def handler(p, c):\n    c.result_type = 'a\\r\\nx: y'\n    return b''\n",
    "node": "exports.handler = (p, c) => { c.resultType = 'a\\r\\nx: y';"
    " return Buffer.alloc(0); };\n",
    "go": go('return Bad("x"), nil')
    + '\ntype Bad string\n\nfunc (Bad) ContentType() string {\n\treturn "a\\r\\nx: y"\n}\n',
}
HUGE_RAW = {
    "python": "def handler(p):\n    return bytes((1 << 20) + 1)\n",
    "node": "exports.handler = (p) => Buffer.alloc((1 << 20) + 1);\n",
    "go": go("return make([]byte, (1<<20)+1), nil"),
}
PROGRAM_FILE = {
    "python": "import os\nprint('FUNCTION_PAYLOAD' in os.environ)\n"
    "print(open(os.environ['FUNCTION_PAYLOAD_FILE'], 'rb').read().hex())\n",
    "node": "const bytes = require('fs').readFileSync(process.env.FUNCTION_PAYLOAD_FILE);\n"
    "console.log('FUNCTION_PAYLOAD' in process.env ? 'True' : 'False');\n"
    "console.log(bytes.toString('hex'));\n",
    "go": go_program(
        '_, there := os.LookupEnv("FUNCTION_PAYLOAD")\n'
        '\tbytes, _ := os.ReadFile(os.Getenv("FUNCTION_PAYLOAD_FILE"))\n'
        '\tfmt.Println(map[bool]string{true: "True", false: "False"}[there])\n'
        '\tfmt.Printf("%x\\n", bytes)',
        "fmt",
        "os",
    ),
}
PROGRAM = {
    "python": "import os, sys\nprint('log', file=sys.stderr)\n"
    "print(os.environ['FUNCTION_PAYLOAD'])\n",
    "node": "console.error('log');\nconsole.log(process.env.FUNCTION_PAYLOAD);\n",
    "go": go_program(
        'fmt.Fprintln(os.Stderr, "log")\n\tfmt.Println(os.Getenv("FUNCTION_PAYLOAD"))', "fmt", "os"
    ),
}
PROGRAM_TEXT = {
    "python": "print('not json')\n",
    "node": "console.log('not json');\n",
    "go": go_program('fmt.Println("not json")', "fmt"),
}
PROGRAM_EXIT = {
    "python": "raise SystemExit(3)\n",
    "node": "process.exit(3);\n",
    "go": go_program("os.Exit(3)", "os"),
}
PROGRAM_RAISE = {
    "python": "raise LookupError('lost')\n",
    "node": "throw new RangeError('lost');\n",
    "go": go_program('panic("lost")'),
}
PROGRAM_SLEEP = {
    "python": "import time\ntime.sleep(60)\n",
    "node": "setTimeout(() => {}, 60000);\n",
    "go": go_program("time.Sleep(time.Minute)", "time"),
}
PROGRAM_MEMORY = {
    "python": "kept = []\nwhile True: kept.append(b'x' * (1 << 20))\n",
    "node": "const kept = [];\nfor (;;) kept.push(Buffer.alloc(1 << 20, 1));\n",
    "go": go_program(
        "var kept [][]byte\n\tfor {\n"
        '\t\tkept = append(kept, bytes.Repeat([]byte("x"), 1<<20))\n\t}',
        "bytes",
    ),
}
PROGRAM_HEAP = {
    "node": "const kept = [];\nfor (;;) kept.push(new Array(1000).fill(0.5));\n",
}
