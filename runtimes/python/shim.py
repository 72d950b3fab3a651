"""Runs one function inside a sandbox: the other end of `runtimes/CONTRACT.md`.

Python 3.9 and later; nothing but the standard library.
"""

import inspect
import json
import math
import os
import re
import resource
import signal
import socket
import struct
import subprocess
import sys
import time
import traceback

MAX_DEPTH = 32
# Unless the worker says otherwise.
MAX_RESULT_BYTES = 1024 * 1024
# A header is at most 64 KiB, and JSON makes up to six bytes of a character.
MAX_STACK_CHARACTERS = 6 * 1024
MAX_MESSAGE_CHARACTERS = 4 * 1024
# Beyond it execve refuses a variable (128 KiB with the name and the NUL).
MAX_VARIABLE_BYTES = 120 * 1024
# What is copied to be sent at once.
MAX_JOINED_BYTES = 64 * 1024

JSON = re.compile(r"(?i)(application|text)/json|[^/;]+/[^/;]+\+json")
JSON_TYPE, RAW_TYPE = "application/json", "application/octet-stream"

# What has lost its connection lives on for so long, to be told from what has crashed.
LINGER_S = 30

# A function that ends its process has no answer: FUNCTION_CRASHED, with its exit code.
EXITS = (SystemExit, KeyboardInterrupt, GeneratorExit)

SHIM = os.path.abspath(__file__)
CODE_DIR = os.path.abspath(os.environ.get("FUNCTION_CODE_DIR", "/app/function"))


class Failure(Exception):
    """What the function did wrong, as an `error` frame says it."""

    def __init__(self, code, message, error_type="", stack="", exit_code=None):
        super().__init__(message)
        self.header = {
            "type": "error",
            "code": code,
            "error_type": error_type[:256],
            "message": message[:MAX_MESSAGE_CHARACTERS],
            # The end of a stack says more than its beginning.
            "stack": stack[-MAX_STACK_CHARACTERS:],
        }
        if exit_code is not None:
            self.header["exit_code"] = exit_code


class Limits:
    """What the worker takes."""

    result_bytes = MAX_RESULT_BYTES


class Context:
    """What a handler learns of its invocation."""

    def __init__(self, load, invoke):
        self.invocation_id = invoke.get("invocation_id", "")
        self.function_id = load.get("function_id", "")
        self.function_name = load.get("function_name", "")
        self.function_version = load.get("function_version", 0)
        self.attempt = invoke.get("attempt", 1)
        self.deadline = invoke.get("deadline_unix_s")
        self.traceparent = invoke.get("traceparent", "")
        self.payload_type = invoke.get("payload_type") or JSON_TYPE
        self.result_type = None
        """The function may set the content type of its result."""

    def remaining_s(self):
        """Seconds until the deadline; infinite if there is none."""
        return math.inf if self.deadline is None else max(self.deadline - time.time(), 0.0)

    def environment(self):
        """The same as variables."""
        return {
            "FAAS_INVOCATION_ID": self.invocation_id,
            "FAAS_FUNCTION_ID": self.function_id,
            "FAAS_FUNCTION_NAME": self.function_name,
            "FAAS_FUNCTION_VERSION": str(self.function_version),
            "FAAS_ATTEMPT": str(self.attempt),
            "FAAS_DEADLINE": "" if self.deadline is None else repr(self.deadline),
            "FAAS_TRACEPARENT": self.traceparent,
            "FAAS_PAYLOAD_TYPE": self.payload_type,
        }


# --- The function --------------------------------------------------------------------------


class Handler:
    """Handler mode: a callable of an imported module."""

    def __init__(self, name):
        module_name, _, attribute = name.rpartition(".")
        sys.path.insert(0, CODE_DIR)
        self._loop = None
        try:
            __import__(module_name)
        except EXITS:
            raise
        except BaseException as error:
            raise raised(error) from None
        self._callable = getattr(sys.modules[module_name], attribute, None)
        if not callable(self._callable):
            message = f"module '{module_name}' has no callable '{attribute}'"
            raise Failure("FUNCTION_ERROR", message, "AttributeError")
        self._takes_context = takes_two(self._callable)

    def call(self, payload, context):
        """The result and its content type. Raises Failure."""
        os.environ.update(context.environment())
        try:
            given = json.loads(payload) if is_json(context.payload_type) else payload
            arguments = (given, context)[: 2 if self._takes_context else 1]
            value = self._callable(*arguments)
            if inspect.isawaitable(value):
                value = self._run(value)
        except EXITS:
            raise
        except BaseException as error:
            raise raised(error) from None
        return typed(value, context.result_type)

    def _run(self, awaitable):
        # One loop for the sandbox's life: what module state holds may belong to it.
        if self._loop is None:
            import asyncio  # 30 ms that only coroutines need to pay

            self._loop = asyncio.new_event_loop()
            asyncio.set_event_loop(self._loop)

        async def wait():
            return await awaitable

        return self._loop.run_until_complete(wait())


class Program:
    """Program mode: the file as a child process, once for each invocation."""

    def call(self, payload, context):
        environment = dict(os.environ, **context.environment())
        environment.pop("FUNCTION_PAYLOAD", None)
        if len(payload) <= MAX_VARIABLE_BYTES and b"\0" not in payload:
            try:
                environment["FUNCTION_PAYLOAD"] = payload.decode()
            except UnicodeDecodeError:
                pass  # the file has it
        command = [sys.executable, os.path.join(CODE_DIR, "main.py")]
        with subprocess.Popen(
            command, cwd=CODE_DIR, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE
        ) as child:
            printed = child.stdout.read(Limits.result_bytes + 1)
            if len(printed) > Limits.result_bytes:
                child.kill()
                raise too_large()
        if child.returncode:
            raise crashed(child.returncode)
        return as_document(printed), JSON_TYPE


def takes_two(function):
    """Whether it is to be called with payload and context, or with the payload alone."""
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    count = sum(parameter.kind in positional for parameter in parameters)
    return count >= 2 or any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters)


# --- Results -------------------------------------------------------------------------------


def is_json(content_type):
    return JSON.fullmatch(content_type.partition(";")[0].strip()) is not None


def typed(value, content_type):
    """What a handler returned and the type it chose, if any, as bytes and content type."""
    if content_type is not None and not isinstance(content_type, str):
        raise Failure("BAD_OUTPUT", "context.result_type is no string", "TypeError")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return limited(as_bytes(value)), content_type or RAW_TYPE
    if content_type is None or is_json(content_type):
        return encode(value), content_type or JSON_TYPE
    if isinstance(value, str):
        try:
            return limited(value.encode("utf-8")), content_type
        except UnicodeEncodeError:
            raise Failure("BAD_OUTPUT", "the result has a lone surrogate") from None
    message = f"a result of type {content_type} is bytes or a string, not {type(value).__name__}"
    raise Failure("BAD_OUTPUT", message, "TypeError")


def as_bytes(value):
    """Copied only if need be: it may be half of the memory that there is."""
    return value if type(value) is bytes else bytes(value)


def limited(result):
    if len(result) > Limits.result_bytes:
        raise too_large()
    return result


def encode(value):
    """`value` as JSON. Raises Failure."""
    try:
        check_depth(value)
        document = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        result = document.encode("utf-8")
    except Exception as error:
        message = f"the result is not JSON: {describe(error)}"
        raise Failure("BAD_OUTPUT", message, type(error).__name__) from None
    return limited(result)


def check_depth(value, depth=0):
    if isinstance(value, (dict, list, tuple)):
        if depth >= MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH} levels")
        for item in value.values() if isinstance(value, dict) else value:
            check_depth(item, depth + 1)


def as_document(printed):
    """What a program printed: JSON if it parses, otherwise a string. Raises Failure."""
    try:
        text = printed.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise Failure("BAD_OUTPUT", "what the program printed is not UTF-8") from None
    if not text:
        return b"null"
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        # Without the newline that ends the last line.
        value = printed.decode("utf-8")
        value = value[:-1] if value.endswith("\n") else value
    return encode(value)


def too_large():
    return Failure("OUTPUT_TOO_LARGE", f"the result is larger than {Limits.result_bytes} bytes")


def crashed(return_code):
    if return_code < 0:
        try:
            name = signal.Signals(-return_code).name
        except ValueError:
            name = f"signal {-return_code}"
        return Failure("FUNCTION_CRASHED", f"killed by {name}", exit_code=128 - return_code)
    message = f"exited with code {return_code}"
    return Failure("FUNCTION_CRASHED", message, exit_code=return_code)


def raised(error):
    """A FUNCTION_ERROR with the user's own lines alone."""
    return Failure("FUNCTION_ERROR", describe(error), type(error).__name__, user_stack(error))


def describe(error):
    try:
        return str(error)
    except Exception:
        return "its message could not be made"


def user_stack(error):
    try:
        return "".join(stack_lines(error)).rstrip("\n")
    except Exception:
        return ""


def stack_lines(error, seen=()):
    """The traceback, with its causes, without what is not below the code directory."""
    cause = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if cause is not None and cause not in seen:
        yield from stack_lines(cause, (*seen, error))
        yield "\n"
    frames = []
    for frame in traceback.extract_tb(error.__traceback__):
        path = os.path.abspath(frame.filename)
        if path.startswith(CODE_DIR + os.sep):
            frame.filename = os.path.relpath(path, CODE_DIR)
            frames.append(frame)
    if frames:
        yield "Traceback (most recent call last):\n"
        yield from traceback.format_list(frames)
    for line in traceback.format_exception_only(type(error), error):
        # A syntax error names its file here.
        yield line.replace(CODE_DIR + os.sep, "")


# --- Metrics -------------------------------------------------------------------------------


MAXRSS_UNIT = 1 if sys.platform == "darwin" else 1024


def own_peak(usage):
    """This process's most memory, in bytes; getrusage counts its parent's before exec too."""
    try:
        with open("/proc/self/status", "rb") as file:
            return int(file.read().split(b"VmHWM:")[1].split()[0]) * 1024
    except (OSError, IndexError):
        return usage.ru_maxrss * MAXRSS_UNIT


def metrics():
    """CPU time and peak memory of the sandbox: its cgroup's, or else this process tree's."""
    if not os.environ.get("FUNCTION_CODE_DIR"):
        cpu_time_s, peak = cgroup_metrics()
        if cpu_time_s is not None or peak is not None:
            return {
                "cpu_time_s": cpu_time_s,
                "peak_memory_bytes": peak,
                "left_processes": max(processes() - OWN_PROCESSES, 0),
            }
    own = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    times = (own.ru_utime, own.ru_stime, children.ru_utime, children.ru_stime)
    return {
        "cpu_time_s": round(sum(times), 6),
        "peak_memory_bytes": max(own_peak(own), children.ru_maxrss * MAXRSS_UNIT),
    }


def processes():
    """How many there are in this sandbox."""
    try:
        return sum(name.isdigit() for name in os.listdir("/proc"))
    except OSError:
        return 0


# Before the function's code is loaded: init and the shim.
OWN_PROCESSES = processes()


def cgroup_metrics(root="/sys/fs/cgroup"):
    peak = read_number(root + "/memory.peak")
    if peak is None:
        peak = read_number(root + "/memory/memory.max_usage_in_bytes")
    microseconds = read_number(root + "/cpu.stat", "usage_usec")
    if microseconds is not None:
        return microseconds / 1e6, peak
    nanoseconds = read_number(root + "/cpuacct/cpuacct.usage")
    return (None if nanoseconds is None else nanoseconds / 1e9), peak


def read_number(path, key=None):
    try:
        with open(path) as file:
            if key is None:
                return int(file.read())
            return next((int(line.split()[1]) for line in file if line.startswith(key + " ")), None)
    except (OSError, ValueError, IndexError):
        return None


# --- Conversation --------------------------------------------------------------------------


class Connection:
    """Frames to and from the worker."""

    def __init__(self, path):
        plain = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        plain.connect(path)
        # Descriptors 0 to 2 are the function's, even if it was started without them.
        import fcntl

        descriptor = fcntl.fcntl(plain.fileno(), fcntl.F_DUPFD_CLOEXEC, 3)
        plain.close()
        self._socket = socket.socket(fileno=descriptor)
        self._input = self._socket.makefile("rb")

    def send(self, header, body=b""):
        text = json.dumps(header, ensure_ascii=False).encode("utf-8", "replace")
        head = struct.pack(">II", len(text), len(body)) + text
        try:
            if len(body) <= MAX_JOINED_BYTES:
                self._socket.sendall(head + body)
            else:
                self._socket.sendall(head)
                self._socket.sendall(body)
        except OSError:
            time.sleep(LINGER_S)
            os._exit(1)

    def receive(self):
        """The next frame's header and body; None when the worker has closed its side."""
        lengths = self._read(8)
        if lengths is None:
            return None
        header_length, body_length = struct.unpack(">II", lengths)
        header = self._read(header_length)
        body = self._read(body_length)
        return None if header is None or body is None else (json.loads(header), body)

    def _read(self, length):
        data = self._input.read(length)
        return None if len(data) < length else data


def load(header):
    """The function that `header` names, with its environment set. Raises Failure."""
    os.environ["FUNCTION_HANDLER"] = header["handler"]
    os.environ.update(header.get("env") or {})
    Limits.result_bytes = header.get("max_result_bytes", MAX_RESULT_BYTES)
    # This process is the function's now: the platform's own variables stay as they are.
    return Handler(header["handler"]) if "." in header["handler"] else Program()


def serve(connection):
    """The whole conversation, until the worker closes its side."""
    version = ".".join(map(str, sys.version_info[:3]))
    connection.send({"type": "hello", "protocol": 1, "runtime": "python", "version": version})
    frame = connection.receive()
    if frame is None:
        return
    loading = frame[0]
    try:
        function = load(loading)
    except Failure as failure:
        connection.send(dict(failure.header, metrics=metrics()))
        return
    connection.send({"type": "loaded"})
    while True:
        frame = connection.receive()
        if frame is None:
            return
        header, payload = frame
        try:
            result, content_type = function.call(payload, Context(loading, header))
            answer = {"type": "result", "content_type": content_type}
        except Failure as failure:
            result, answer = b"", failure.header
        # What was printed is out before the answer is: logs are complete when it comes.
        flush()
        answer["invocation_id"] = header.get("invocation_id", "")
        connection.send(dict(answer, metrics=metrics()), result)


def run_once():
    """Without a worker: run from the environment and print the result; the exit code."""
    result_output = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # What the function prints is log.
    file = os.environ.get("FUNCTION_PAYLOAD_FILE")
    if file:
        with open(file, "rb") as stream:
            payload = stream.read()
    else:
        payload = os.environ.get("FUNCTION_PAYLOAD", "null").encode()
    try:
        loading = {"handler": os.environ.get("FUNCTION_HANDLER", "main.handler")}
        context = Context(loading, {"payload_type": os.environ.get("FAAS_PAYLOAD_TYPE")})
        result, content_type = load(loading).call(payload, context)
    except Failure as failure:
        flush()
        for part in ("code", "message", "stack"):
            if failure.header[part]:
                sys.stderr.write(f"{failure.header[part]}\n")
        return 1
    flush()
    result_output.write(result + b"\n" if is_json(content_type) else result)
    result_output.flush()
    return 0


def exit_code(status):
    """What sys.exit(status) ends a process with."""
    if status is None:
        return 0
    if isinstance(status, int):
        return status & 0xFF
    sys.stderr.write(f"{status}\n")
    return 1


def flush():
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except Exception:  # noqa: S110 - the function closed or replaced it: its own affair
            pass


def main():
    path = os.environ.get("FUNCTION_SOCKET")
    # Logs keep their order and are not lost when the process is killed.
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    # `import shim` is not the function's to find.
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry) != os.path.dirname(SHIM)]
    if path is None:
        os.chdir(CODE_DIR)
        return run_once()
    connection = Connection(path)
    os.chdir(CODE_DIR)
    code = 0
    try:
        serve(connection)
    except SystemExit as exit_:
        code = exit_code(exit_.code)
    flush()
    # Threads that the function left do not keep a sandbox alive.
    os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
