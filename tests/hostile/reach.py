"""What a function tries to reach, in three languages, and what the kernel tells it.

Each probe answers, for every attempt, `done` or the name of the error. What it sees of
others is looked for by a word that a neighbour holds in its code, its environment and
its files.
"""

from collections.abc import Mapping

from tests.conformance.functions import go
from tests.hostile.table import LANGUAGES, Cannot

PARTS = ("nobody-elses", "9f2d")
SECRET = "-".join(PARTS)
"""The probes put it together: their own code does not hold it."""
NEIGHBOUR = f"""
import os

HELD = "{SECRET}"

def handler(payload):
    with open("/tmp/held", "w") as file:
        file.write(HELD)
    return os.environ["HELD"]
"""

NO_CALLS = Cannot("JavaScript has no system calls of its own; native code is the other rows'")
DENIED: Mapping[str, str | Mapping[str, str | Cannot]] = {
    "write /etc/evil": "EROFS",
    "write /app/function/evil": "EROFS",
    "write /run/faas/evil": "EROFS",
    "write /proc/sys/kernel/core_pattern": "EROFS",
    "read /var/run/docker.sock": "ENOENT",
    "read /dev/mem": "ENOENT",
    # The host on its bridge, a cloud's metadata, somebody on the internet: it has no network.
    "connect 172.17.0.1:5432": "ENETUNREACH",
    "connect 169.254.169.254:80": "ENETUNREACH",
    "connect 192.0.2.1:443": "ENETUNREACH",
    # Its own loopback is nobody else's.
    "connect 127.0.0.1:6379": "ECONNREFUSED",
    "setuid": {"python": "EPERM", "node": Cannot("Node refuses it before it asks"), "go": "EPERM"},
    "raw socket": {"python": "EPERM", "node": NO_CALLS, "go": "EPERM"},
    "mount": {"python": "EPERM", "node": NO_CALLS, "go": "EPERM"},
    "chroot": {"python": "EPERM", "node": NO_CALLS, "go": "EPERM"},
    "unshare": {"python": "EPERM", "node": NO_CALLS, "go": "EPERM"},
    "ptrace": {"python": "ESRCH", "node": NO_CALLS, "go": "ESRCH"},
    "raise its limits": {"python": "EPERM", "node": NO_CALLS, "go": "EPERM"},
    "others' secrets": "none",
    "others' processes": "none",
}


def denied(language: str) -> dict[str, str]:
    """What a probe in this language must answer."""
    found = {}
    for attempt, answer in DENIED.items():
        said = answer if isinstance(answer, str) else answer[language]
        if isinstance(said, str):
            found[attempt] = said
    return found


def of(kind: str) -> list[str]:
    """The objects of all attempts of a kind."""
    return [name.partition(" ")[2] for name in DENIED if name.startswith(f"{kind} ")]


# A process of the host's, far beyond those of any sandbox.
FAR = 4_000_000

PYTHON = f"""
import ctypes, errno, glob, os, resource, socket

libc = ctypes.CDLL(None, use_errno=True)
SECRET = "-".join({PARTS}).encode()

def attempt(action):
    try:
        action()
    except OSError as error:
        return errno.errorcode[error.errno]
    except ValueError:
        return "EPERM"
    return "done"

def call(name, *arguments):
    if getattr(libc, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)

def write(path):
    with open(path, "w") as file:
        file.write("1")

def connect(address):
    host, port = address.split(":")
    socket.create_connection((host, int(port)), 2).close()

def secrets():
    for pattern in ("/app/**", "/run/**", "/tmp/**", "/proc/[0-9]*/environ", "/dev/shm/**"):
        for path in glob.glob(pattern, recursive=True):
            try:
                if os.path.isfile(path) and SECRET in open(path, "rb").read():
                    yield path
            except OSError:
                continue

def handler(payload):
    found = {{}}
    for path in {of("write")}:
        found["write " + path] = attempt(lambda: write(path))
    for path in {of("read")}:
        found["read " + path] = attempt(lambda: open(path).close())
    for address in {of("connect")}:
        found["connect " + address] = attempt(lambda: connect(address))
    found["setuid"] = attempt(lambda: os.setuid(0))
    raw = (socket.AF_INET, socket.SOCK_RAW, 1)
    found["raw socket"] = attempt(lambda: socket.socket(*raw).close())
    found["mount"] = attempt(lambda: call("mount", b"none", b"/tmp", b"tmpfs", 0, None))
    found["chroot"] = attempt(lambda: os.chroot("/tmp"))
    found["unshare"] = attempt(lambda: call("unshare", 0x10000000))
    found["ptrace"] = attempt(lambda: call("ptrace", 16, {FAR}, None, None))
    limits = (resource.RLIMIT_NOFILE, (4096, 4096))
    found["raise its limits"] = attempt(lambda: resource.setrlimit(*limits))
    found["others' secrets"] = ", ".join(secrets()) or "none"
    seen = [name for name in os.listdir("/proc") if name.isdigit()]
    found["others' processes"] = "none" if len(seen) <= 4 else " ".join(seen)
    return found
"""
NODE = f"""
const fs = require('fs');
const net = require('net');
const path = require('path');

function attempt(action) {{
  try {{
    action();
    return 'done';
  }} catch (error) {{
    return error.code;
  }}
}}

function connect(address) {{
  const [host, port] = address.split(':');
  return new Promise((resolve) => {{
    const socket = net.connect(Number(port), host, () => resolve('done'));
    socket.on('error', (error) => resolve(error.code));
  }});
}}

function* files(directory) {{
  let entries = [];
  try {{
    entries = fs.readdirSync(directory, {{ withFileTypes: true }});
  }} catch {{}}
  for (const entry of entries) {{
    const name = path.join(directory, entry.name);
    if (entry.isDirectory()) yield* files(name);
    else if (entry.isFile()) yield name;
  }}
}}

function holds(name) {{
  try {{

    return fs.readFileSync(name).includes({list(PARTS)}.join('-'));
  }} catch {{
    return false;
  }}
}}

exports.handler = async () => {{
  const found = {{}};
  for (const name of {of("write")}) {{
    found['write ' + name] = attempt(() => fs.writeFileSync(name, '1'));
  }}
  for (const name of {of("read")}) {{
    found['read ' + name] = attempt(() => fs.closeSync(fs.openSync(name)));
  }}
  for (const address of {of("connect")}) found['connect ' + address] = await connect(address);
  const seen = fs.readdirSync('/proc').filter((name) => /^\\d+$/.test(name));
  const all = ['/app', '/run', '/tmp', '/dev/shm'].flatMap((name) => [...files(name)]);
  all.push(...seen.map((name) => `/proc/${{name}}/environ`));
  found["others' secrets"] = all.filter(holds).join(', ') || 'none';
  found["others' processes"] = seen.length <= 4 ? 'none' : seen.join(' ');
  return found;
}};
"""


def _strings(values: list[str]) -> str:
    return "[]string{" + ", ".join(f'"{value}"' for value in values) + "}"


GO = (
    go(
        f"""found := map[string]string{{}}
	for _, path := range {_strings(of("write"))} {{
		found["write "+path] = said(os.WriteFile(path, []byte("1"), 0o600))
	}}
	for _, path := range {_strings(of("read"))} {{
		file, err := os.Open(path)
		file.Close()
		found["read "+path] = said(err)
	}}
	for _, address := range {_strings(of("connect"))} {{
		connection, err := net.DialTimeout("tcp", address, 2*time.Second)
		if err == nil {{
			connection.Close()
		}}
		found["connect "+address] = said(err)
	}}
	found["setuid"] = said(syscall.Setuid(0))
	_, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_RAW, 1)
	found["raw socket"] = said(err)
	found["mount"] = said(syscall.Mount("none", "/tmp", "tmpfs", 0, ""))
	found["chroot"] = said(syscall.Chroot("/tmp"))
	found["unshare"] = said(syscall.Unshare(syscall.CLONE_NEWUSER))
	found["ptrace"] = said(syscall.PtraceAttach({FAR}))
	limit := syscall.Rlimit{{Cur: 4096, Max: 4096}}
	found["raise its limits"] = said(syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit))
	secrets, secret := []string{{}}, []byte(strings.Join({_strings(list(PARTS))}, "-"))
	look := func(path string) {{
		content, _ := os.ReadFile(path)
		if bytes.Contains(content, secret) {{
			secrets = append(secrets, path)
		}}
	}}
	for _, root := range []string{{"/app", "/run", "/tmp", "/dev/shm"}} {{
		filepath.WalkDir(root, func(path string, entry os.DirEntry, err error) error {{
			if err == nil && entry.Type().IsRegular() {{
				look(path)
			}}
			return nil
		}})
	}}
	seen, _ := filepath.Glob("/proc/[0-9]*")
	for _, process := range seen {{
		look(process + "/environ")
	}}
	found["others' secrets"], found["others' processes"] = "none", "none"
	if len(secrets) > 0 {{
		found["others' secrets"] = strings.Join(secrets, ", ")
	}}
	if len(seen) > 4 {{
		found["others' processes"] = strings.Join(seen, " ")
	}}
	return found, nil""",
        "bytes",
        "errors",
        "net",
        "os",
        "path/filepath",
        "strings",
        "syscall",
        "time",
    )
    + """
func said(err error) string {
	var number syscall.Errno
	if errors.As(err, &number) {
		names := map[syscall.Errno]string{
			syscall.EROFS: "EROFS", syscall.EACCES: "EACCES", syscall.ENOENT: "ENOENT",
			syscall.EPERM: "EPERM", syscall.ESRCH: "ESRCH", syscall.ENETUNREACH: "ENETUNREACH",
			syscall.ECONNREFUSED: "ECONNREFUSED",
		}
		if name, known := names[number]; known {
			return name
		}
	}
	if err != nil {
		return err.Error()
	}
	return "done"
}
"""
)
PROBES = dict(zip(LANGUAGES, (PYTHON, NODE, GO), strict=True))
