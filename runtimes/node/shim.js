// Runs one function inside a sandbox: the other end of runtimes/CONTRACT.md.
// Node 18 and later; nothing but the standard library.
'use strict';

const childProcess = require('node:child_process');
const fs = require('node:fs');
const net = require('node:net');
const os = require('node:os');
const path = require('node:path');
const { pathToFileURL } = require('node:url');

const MAX_DEPTH = 32;
// Unless the worker says otherwise.
let maxResultBytes = 1024 * 1024;
// What is copied to be sent at once.
const MAX_JOINED_BYTES = 64 * 1024;
// A header is at most 64 KiB, and JSON makes up to six bytes of a character.
const MAX_STACK = 6 * 1024;
const MAX_MESSAGE = 4 * 1024;
// Beyond it execve refuses a variable.
const MAX_VARIABLE_BYTES = 120 * 1024;

const LINGER_MS = 30_000;

const JSON_TYPE = 'application/json';
const RAW_TYPE = 'application/octet-stream';

// With its links resolved, as the stacks have it.
const CODE_DIR = realpath(process.env.FUNCTION_CODE_DIR || '/app/function');
const ownCgroup = !process.env.FUNCTION_CODE_DIR;

/** What the function did wrong, as an `error` frame says it. */
class Failure extends Error {
  constructor(code, message, { type = '', stack = '', exitCode } = {}) {
    super(message);
    this.header = {
      type: 'error',
      code,
      error_type: type.slice(0, 256),
      message: message.slice(0, MAX_MESSAGE),
      stack: stack.slice(-MAX_STACK),
      exit_code: exitCode,
    };
  }
}

/** What a handler learns of its invocation. */
class Context {
  constructor(load, invoke) {
    this.invocationId = invoke.invocation_id ?? '';
    this.functionId = load.function_id ?? '';
    this.functionName = load.function_name ?? '';
    this.functionVersion = load.function_version ?? 0;
    this.attempt = invoke.attempt ?? 1;
    this.deadline = invoke.deadline_unix_s;
    this.traceparent = invoke.traceparent ?? '';
    this.payloadType = invoke.payload_type || JSON_TYPE;
    /** The function may set the content type of its result. */
    this.resultType = undefined;
  }

  /** Milliseconds until the deadline; infinite if there is none. */
  remainingMs() {
    return this.deadline === undefined ? Infinity : Math.max(this.deadline * 1000 - Date.now(), 0);
  }

  environment() {
    return {
      FAAS_INVOCATION_ID: this.invocationId,
      FAAS_FUNCTION_ID: this.functionId,
      FAAS_FUNCTION_NAME: this.functionName,
      FAAS_FUNCTION_VERSION: String(this.functionVersion),
      FAAS_ATTEMPT: String(this.attempt),
      FAAS_DEADLINE: String(this.deadline ?? ''),
      FAAS_TRACEPARENT: this.traceparent,
      FAAS_PAYLOAD_TYPE: this.payloadType,
    };
  }
}

// --- The function --------------------------------------------------------------------------

/** Handler mode: a callable of a module, CommonJS or ES. */
async function loadHandler(name) {
  const dot = name.lastIndexOf('.');
  const [moduleName, attribute] = [name.slice(0, dot), name.slice(dot + 1)];
  const file = sourceFile(moduleName.replaceAll('.', '/'));
  let loaded;
  try {
    loaded = await load(file);
  } catch (error) {
    throw raised(error);
  }
  const callable = loaded?.[attribute] ?? loaded?.default?.[attribute];
  if (typeof callable !== 'function') {
    const message = `module '${moduleName}' exports no function '${attribute}'`;
    throw new Failure('FUNCTION_ERROR', message, { type: 'TypeError' });
  }
  return async (payload, context) => {
    Object.assign(process.env, context.environment());
    let value;
    try {
      const given = isJson(context.payloadType) ? JSON.parse(payload.toString()) : Buffer.from(payload);
      // One that declares one parameter is called with one; (...args) and defaults get both.
      value = await (callable.length === 1 ? callable(given) : callable(given, context));
    } catch (error) {
      throw raised(error);
    }
    return typed(value, context.resultType);
  };
}

async function load(file) {
  try {
    return require(file);
  } catch (error) {
    // An ES module: by its name, by package.json, by its syntax or by top-level await.
    const codes = ['ERR_REQUIRE_ESM', 'ERR_REQUIRE_ASYNC_MODULE', 'ERR_REQUIRE_CYCLE_MODULE'];
    const syntax = error instanceof SyntaxError && looksLikeModule(file);
    if (!codes.includes(error?.code) && !syntax) throw error;
    if (!syntax || process.features.require_module) return import(pathToFileURL(file).href);
    // Before Node 22 a .js file is an ES module only if its package says so, and the
    // directory is not ours to write: its text is imported as it is.
    return import(asModule(file));
  }
}

function looksLikeModule(file) {
  return /^\s*(import\b|export\b)/m.test(fs.readFileSync(file, 'utf8'));
}

/** An address that imports `file` as an ES module; its own relative imports keep working. */
function asModule(file) {
  const source = fs.readFileSync(file, 'utf8').replace(
    /(\bfrom\s*|\bimport\s*\(?\s*)(['"])(\.{1,2}\/[^'"]*)\2/g,
    (_, head, quote, target) => head + quote + new URL(target, pathToFileURL(file)).href + quote,
  );
  return `data:text/javascript,${encodeURIComponent(`${source}\n//# sourceURL=${file}`)}`;
}

function sourceFile(name) {
  const files = ['.js', '.mjs', '.cjs'].map((ending) => path.join(CODE_DIR, name + ending));
  return files.find((file) => fs.existsSync(file)) ?? files[0];
}

/** Program mode: the file as a child process, once for each invocation. */
function runProgram(payload, context) {
  const environment = { ...process.env, ...context.environment() };
  delete environment.FUNCTION_PAYLOAD;
  const variable = payload.length <= MAX_VARIABLE_BYTES ? asText(payload) : undefined;
  if (variable !== undefined && !variable.includes('\0')) environment.FUNCTION_PAYLOAD = variable;
  return new Promise((resolve, reject) => {
    const child = childProcess.spawn(process.execPath, [sourceFile('main')], {
      cwd: CODE_DIR,
      env: environment,
      stdio: ['ignore', 'pipe', 2],
    });
    const pieces = [];
    let size = 0;
    child.stdout.on('data', (piece) => {
      size += piece.length;
      if (size > maxResultBytes) {
        child.kill('SIGKILL');
        child.stdout.destroy();
      } else {
        pieces.push(piece);
      }
    });
    child.on('error', reject);
    child.on('close', (code, signal) => {
      try {
        if (size > maxResultBytes) throw tooLarge();
        if (code !== 0) throw crashed(code, signal);
        resolve({ result: asDocument(Buffer.concat(pieces)), type: JSON_TYPE });
      } catch (failure) {
        reject(failure);
      }
    });
  });
}

// --- Results -------------------------------------------------------------------------------

function isJson(type) {
  return /^(?:(?:application|text)\/json|[^/;]+\/[^/;]+\+json)$/i.test(type.split(';')[0].trim());
}

/** What a handler returned and the type it chose, if any, as bytes and content type. */
function typed(value, type) {
  if (type !== undefined && typeof type !== 'string') {
    throw new Failure('BAD_OUTPUT', 'context.resultType is no string', { type: 'TypeError' });
  }
  if (value instanceof ArrayBuffer || ArrayBuffer.isView(value)) {
    const view = ArrayBuffer.isView(value) ? [value.buffer, value.byteOffset, value.byteLength] : [value];
    return { result: limited(Buffer.from(...view)), type: type || RAW_TYPE };
  }
  if (!type || isJson(type)) return { result: encode(value), type: type || JSON_TYPE };
  if (typeof value === 'string') return { result: limited(Buffer.from(value)), type };
  const message = `a result of type ${type} is a Buffer or a string, not ${value === null ? 'null' : typeof value}`;
  throw new Failure('BAD_OUTPUT', message, { type: 'TypeError' });
}

function limited(result) {
  if (result.length > maxResultBytes) throw tooLarge();
  return result;
}

function encode(value) {
  let text;
  try {
    checkValue(value === undefined ? null : value, 0);
    text = JSON.stringify(value === undefined ? null : value);
    if (text === undefined) throw new TypeError(`a ${typeof value} is no JSON value`);
  } catch (error) {
    throw new Failure('BAD_OUTPUT', `the result is not JSON: ${error.message}`, { type: error.name });
  }
  return limited(Buffer.from(text));
}

/** JSON.stringify makes null of what it cannot say; here that is an error. */
function checkValue(value, depth) {
  if (typeof value === 'number' && !Number.isFinite(value)) throw new TypeError(`${value} is no JSON value`);
  if (typeof value === 'string' && /\p{Surrogate}/u.test(value)) throw new TypeError('a string has a lone surrogate');
  if (typeof value === 'function' || typeof value === 'symbol') throw new TypeError(`a ${typeof value} is no JSON value`);
  if (typeof value !== 'object' || value === null) return;
  if (typeof value.toJSON === 'function') {
    checkValue(value.toJSON(), depth);
    return;
  }
  if (depth >= MAX_DEPTH) throw new TypeError(`it is nested deeper than ${MAX_DEPTH} levels`);
  for (const [key, item] of Object.entries(value)) {
    checkValue(key, depth + 1);
    if (item !== undefined) checkValue(item, depth + 1);
  }
}

/** Bytes that are UTF-8, as text; undefined for others. */
function asText(bytes) {
  try {
    return new TextDecoder('utf-8', { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

function asDocument(printed) {
  const text = asText(printed);
  if (text === undefined) throw new Failure('BAD_OUTPUT', 'what the program printed is not UTF-8');
  const document = text.trim();
  if (!document) return Buffer.from('null');
  try {
    checkValue(JSON.parse(document), 0);
    // As it was printed: numbers keep their digits.
    return Buffer.from(document);
  } catch (error) {
    return encode(error instanceof SyntaxError ? text.replace(/\n$/, '') : JSON.parse(document));
  }
}

function tooLarge() {
  return new Failure('OUTPUT_TOO_LARGE', `the result is larger than ${maxResultBytes} bytes`);
}

function crashed(code, signal) {
  if (signal === null) return new Failure('FUNCTION_CRASHED', `exited with code ${code}`, { exitCode: code });
  const exitCode = 128 + os.constants.signals[signal];
  return new Failure('FUNCTION_CRASHED', `killed by ${signal}`, { exitCode });
}

/** A FUNCTION_ERROR with the user's own lines alone. */
function raised(error) {
  try {
    if (!(error instanceof Error)) {
      const text = typeof error === 'string' ? error : JSON.stringify(error) ?? String(error);
      return new Failure('FUNCTION_ERROR', text, { type: typeof error });
    }
    const type = String(error.name || error.constructor?.name);
    // Node adds the files that required it.
    const message = String(error.message).split('\nRequire stack:')[0].replaceAll(CODE_DIR + path.sep, '');
    return new Failure('FUNCTION_ERROR', message, { type, stack: userStack(error) });
  } catch {
    return new Failure('FUNCTION_ERROR', 'its error could not be read');
  }
}

/** The user's frames, most recent call last; a syntax error has its place first. */
function userStack(error) {
  const lines = String(error.stack).split('\n').filter((line) => line.includes(CODE_DIR + path.sep));
  const frames = lines.filter((line) => /^\s+at /.test(line)).reverse();
  const places = lines.filter((line) => !/^\s+at /.test(line) && /:\d+$/.test(line));
  return [...places, ...frames]
    .map((line) => line.replaceAll('file://', '').replaceAll(CODE_DIR + path.sep, ''))
    .join('\n');
}

// --- Metrics -------------------------------------------------------------------------------

function metrics() {
  const found = ownCgroup ? cgroupMetrics() : {};
  if (found.cpu_time_s !== undefined || found.peak_memory_bytes !== undefined) return found;
  const usage = process.resourceUsage();
  // maxRSS counts the parent's memory before exec too.
  const own = readNumber('/proc/self/status', /^VmHWM:\s+(\d+)/m) ?? usage.maxRSS;
  return {
    cpu_time_s: (usage.userCPUTime + usage.systemCPUTime) / 1e6,
    peak_memory_bytes: own * 1024,
  };
}

/** How many there are in this sandbox. */
function processes() {
  try {
    return fs.readdirSync('/proc').filter((name) => /^\d/.test(name)).length;
  } catch {
    return 0;
  }
}

// Before the function's code is loaded: init and the shim.
const ownProcesses = processes();

function cgroupMetrics(root = '/sys/fs/cgroup') {
  const microseconds = readNumber(`${root}/cpu.stat`, /^usage_usec (\d+)/m);
  const nanoseconds = readNumber(`${root}/cpuacct/cpuacct.usage`);
  return {
    left_processes: Math.max(processes() - ownProcesses, 0),
    cpu_time_s: microseconds === undefined ? nanoseconds && nanoseconds / 1e9 : microseconds / 1e6,
    peak_memory_bytes:
      readNumber(`${root}/memory.peak`) ?? readNumber(`${root}/memory/memory.max_usage_in_bytes`),
  };
}

function readNumber(file, pattern = /^(\d+)/) {
  try {
    const match = pattern.exec(fs.readFileSync(file, 'utf8'));
    return match ? Number(match[1]) : undefined;
  } catch {
    return undefined;
  }
}

// --- Conversation --------------------------------------------------------------------------

/** Frames to and from the worker. libuv opens its socket close-on-exec, above 2. */
class Connection {
  constructor(socket) {
    this.socket = socket;
    this.frames = this.read();
  }

  static open(address) {
    return new Promise((resolve, reject) => {
      const socket = net.connect(address, () => resolve(new Connection(socket)));
      socket.once('error', reject);
    });
  }

  send(header, body = Buffer.alloc(0)) {
    const text = Buffer.from(JSON.stringify(header).replaceAll(/\p{Surrogate}/gu, '\ufffd'));
    const lengths = Buffer.alloc(8);
    lengths.writeUInt32BE(text.length, 0);
    lengths.writeUInt32BE(body.length, 4);
    const head = Buffer.concat([lengths, text]);
    return new Promise((resolve) => {
      const sent = (error) => (error ? linger() : resolve());
      if (body.length <= MAX_JOINED_BYTES) {
        this.socket.write(Buffer.concat([head, body]), sent);
      } else {
        this.socket.write(head);
        this.socket.write(body, sent);
      }
    });
  }

  /** The next frame; undefined when the worker has closed its side. */
  async receive() {
    return (await this.frames.next()).value;
  }

  async *read() {
    let pieces = [];
    let size = 0;
    let wanted = 8;
    for await (const piece of this.socket) {
      pieces.push(piece);
      size += piece.length;
      while (size >= wanted) {
        const data = Buffer.concat(pieces);
        const [header, body] = [data.readUInt32BE(0), data.readUInt32BE(4)];
        wanted = 8 + header + body;
        pieces = [data];
        if (size < wanted) break;
        yield { header: JSON.parse(data.subarray(8, 8 + header)), body: data.subarray(8 + header, wanted) };
        pieces = [data.subarray(wanted)];
        size -= wanted;
        wanted = 8;
      }
    }
  }
}

async function prepare(loading) {
  maxResultBytes = loading.max_result_bytes ?? maxResultBytes;
  Object.assign(process.env, { FUNCTION_HANDLER: loading.handler }, loading.env);
  return loading.handler.includes('.') ? loadHandler(loading.handler) : runProgram;
}

async function serve(connection) {
  await connection.send({ type: 'hello', protocol: 1, runtime: 'node', version: process.versions.node });
  const first = await connection.receive();
  if (!first) return;
  const loading = first.header;
  let call;
  try {
    call = await prepare(loading);
  } catch (failure) {
    await connection.send({ ...asFailure(failure).header, metrics: metrics() });
    return;
  }
  await connection.send({ type: 'loaded' });
  for (let frame = await connection.receive(); frame; frame = await connection.receive()) {
    let result;
    let answer;
    try {
      const answered = await call(frame.body, new Context(loading, frame.header));
      result = answered.result;
      answer = { type: 'result', content_type: answered.type };
    } catch (failure) {
      answer = asFailure(failure).header;
    }
    const { invocation_id } = frame.header;
    await connection.send({ ...answer, invocation_id, metrics: metrics() }, result);
  }
}

function asFailure(error) {
  return error instanceof Failure ? error : raised(error);
}

/** Without a worker: run from the environment and print the result. */
async function runOnce() {
  const { env } = process;
  // What the function prints is log.
  const print = process.stdout.write.bind(process.stdout);
  process.stdout.write = process.stderr.write.bind(process.stderr);
  const file = env.FUNCTION_PAYLOAD_FILE;
  const payload = file ? fs.readFileSync(file) : Buffer.from(env.FUNCTION_PAYLOAD ?? 'null');
  const loading = { handler: env.FUNCTION_HANDLER || 'main.handler' };
  try {
    const call = await prepare(loading);
    const context = new Context(loading, { payload_type: env.FAAS_PAYLOAD_TYPE });
    const { result, type } = await call(payload, context);
    print(isJson(type) ? `${result}\n` : result, () => process.exit(0));
  } catch (failure) {
    const { code, message, stack } = asFailure(failure).header;
    const text = [code, message, stack].filter(Boolean).join('\n');
    process.stderr.write(`${text}\n`, () => process.exit(1));
  }
}

function realpath(directory) {
  try {
    return fs.realpathSync(directory);
  } catch {
    return directory;
  }
}

/** What has lost its connection lives on for a while, to be told from what has crashed. */
function linger() {
  return new Promise(() => setTimeout(() => process.exit(1), LINGER_MS));
}

/** Exit when both streams have said all. */
function leave(code) {
  process.stdout.write('', () => process.stderr.write('', () => process.exit(code)));
}

async function main() {
  const address = process.env.FUNCTION_SOCKET;
  const connection = address && (await Connection.open(address));
  // Pipes are asynchronous by default: what was printed before a crash would be lost.
  for (const stream of [process.stdout, process.stderr]) {
    stream._handle?.setBlocking?.(true);
    stream.on('error', () => {});
  }
  process.chdir(CODE_DIR);
  if (!connection) {
    await runOnce();
    return;
  }
  await serve(connection);
  leave(0);
}

main().catch((error) => {
  process.stderr.write(`${error?.stack ?? error}\n`, () => process.exit(1));
});
