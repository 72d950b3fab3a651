// The public HTTP API, typed by the document that the gateway serves.
import type { components, paths } from "./schema";

type Schemas = components["schemas"];
export type Fn = Schemas["Function"];
export type FnVersion = Schemas["FunctionVersion"];
export type Invocation = Schemas["Invocation"];
export type InvocationStatus = Schemas["Invocation.Status"];
export type LogLine = Schemas["LogLine"];
export type Worker = Schemas["Worker"];
export type InvocationEvent = Schemas["InvocationEvent"];
export type Health = Schemas["Health"];
export type Schedule = Schemas["Schedule"];
export type Stats = Schemas["Stats"];

type Method = "get" | "post" | "patch" | "delete";
type Operation<P extends keyof paths, M extends Method> = NonNullable<paths[P][M]>;
export type PathsOf<M extends Method> = {
  [P in keyof paths]: paths[P] extends Record<M, object> ? P : never;
}[keyof paths];

export type PathOf<O> = O extends { parameters: { path: infer X } } ? X : undefined;
export type QueryOf<O> = O extends { parameters: { query?: infer X } } ? X : never;
export type BodyOf<O> = O extends { requestBody: { content: { "application/json": infer X } } }
  ? X
  : never;
export type AnswerOf<O> = O extends {
  responses: { 200: { content: { "application/json": infer X } } };
}
  ? X
  : unknown;

export interface Options<O> {
  path?: PathOf<O>;
  query?: QueryOf<O>;
  /** An object, or JSON text that is sent as it is. */
  body?: BodyOf<O> | string;
  signal?: AbortSignal;
}

/** A field that the server refused, and why. */
export interface FieldViolation {
  field: string;
  description: string;
}

/** An answer that is no success: what the server said, in its words. */
export class ApiError extends Error {
  readonly status: number;
  /** One of the documented reasons; "UNREACHABLE" where nobody answered. */
  readonly reason: string;
  readonly fields: FieldViolation[];

  constructor(status: number, reason: string, message: string, fields: FieldViolation[] = []) {
    super(message);
    this.name = "ApiError";
    this.status = status;
    this.reason = reason;
    this.fields = fields;
  }

  /** Whether the server or a part of it cannot be reached: worth trying again. */
  get isAway(): boolean {
    return this.status === 0 || this.status === 502 || this.status === 503;
  }
}

/** What is sent along to prove who calls. Nothing asks for it yet. */
export const session = { credential: "" };

const TIMEOUT_MS = 30_000;

/** One call. Throws ApiError, or the signal's reason when it was given up. */
export async function call<M extends Method, P extends PathsOf<M>>(
  method: M,
  path: P,
  options: Options<Operation<P, M>> = {},
  timeoutMs = TIMEOUT_MS,
): Promise<AnswerOf<Operation<P, M>>> {
  const answer = await request(method, path, options, timeoutMs);
  return (await answer.json()) as AnswerOf<Operation<P, M>>;
}

export const get = <P extends PathsOf<"get">>(
  path: P,
  options?: Options<Operation<P, "get">>,
  timeoutMs?: number,
) => call("get", path, options, timeoutMs);

export const post = <P extends PathsOf<"post">>(
  path: P,
  options?: Options<Operation<P, "post">>,
  timeoutMs?: number,
) => call("post", path, options, timeoutMs);

/** The health of all parts: a good answer at 503 too. */
export async function health(signal?: AbortSignal): Promise<Health> {
  const answer = await timely("/health", {}, signal, TIMEOUT_MS);
  if (answer.status !== 200 && answer.status !== 503) throw await refused(answer);
  return (await body(answer)) as Health;
}

/** The code of one version, as it was handed in. */
export async function code(name: string, version: number, signal?: AbortSignal): Promise<Blob> {
  const path = "/functions/{function_id}/code";
  const options = { path: { function_id: name }, query: { version }, ...(signal && { signal }) };
  return (await request("get", path, options, TIMEOUT_MS)).blob();
}

/** The address of the payload's or the result's own bytes. */
export const bytesOf = (id: string, what: "payload" | "result") =>
  address(`/invocations/{invocation_id}/${what}`, { invocation_id: id });

/** The first bytes of what is at an address, as text, and whether there is more. */
export async function beginning(url: string, most: number, signal: AbortSignal) {
  const enough = new AbortController();
  const answer = await timely(url, {}, AbortSignal.any([signal, enough.signal]), TIMEOUT_MS);
  if (!answer.ok || !answer.body) throw await refused(answer);
  const reader = answer.body.getReader();
  const decoder = new TextDecoder();
  let text = "";
  let size = 0;
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return { text: text + decoder.decode(), more: false };
    const fits = value.subarray(0, most - size);
    text += decoder.decode(fits, { stream: true });
    size += fits.length;
    if (fits.length < value.length) {
      enough.abort(); // the rest need not travel
      return { text, more: true };
    }
  }
}

export function address(path: string, parameters?: object, query?: object): string {
  const filled = path.replace(/{(\w+)}/g, (_, name: string) =>
    encodeURIComponent(String((parameters as Record<string, unknown> | undefined)?.[name] ?? "")),
  );
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query ?? {}))
    if (value !== undefined && value !== "" && value !== 0) search.set(name, String(value));
  return search.size ? `${filled}?${search.toString()}` : filled;
}

/** Every request of this page goes through here. */
export async function send(url: string, init: RequestInit, signal: AbortSignal): Promise<Response> {
  const headers = new Headers(init.headers);
  if (session.credential) headers.set("Authorization", `Bearer ${session.credential}`);
  try {
    return await fetch(url, { ...init, headers, signal });
  } catch (error) {
    if (signal.aborted) throw signal.reason;
    console.debug(error);
    throw new ApiError(0, "UNREACHABLE", "The server cannot be reached.");
  }
}

async function timely(
  url: string,
  init: RequestInit,
  signal: AbortSignal | undefined,
  timeoutMs: number,
): Promise<Response> {
  const timeout = AbortSignal.timeout(timeoutMs);
  try {
    return await send(url, init, signal ? AbortSignal.any([signal, timeout]) : timeout);
  } catch (error) {
    if (!timeout.aborted || signal?.aborted) throw error;
    const seconds = timeoutMs / 1000;
    throw new ApiError(0, "UNREACHABLE", `The server did not answer within ${seconds} s.`);
  }
}

async function request(
  method: Method,
  path: string,
  options: { path?: unknown; query?: unknown; body?: unknown; signal?: AbortSignal },
  timeoutMs: number,
): Promise<Response> {
  const init: RequestInit = { method: method.toUpperCase() };
  if (method === "post" || method === "patch") {
    init.headers = { "Content-Type": "application/json" };
    init.body = typeof options.body === "string" ? options.body : JSON.stringify(options.body ?? {});
  }
  const url = address(path, options.path as object, options.query as object);
  const answer = await timely(url, init, options.signal, timeoutMs);
  if (!answer.ok) throw await refused(answer);
  return answer;
}

async function body(answer: Response): Promise<unknown> {
  try {
    return await answer.json();
  } catch {
    throw new ApiError(answer.status, "UNREADABLE", `The answer (${answer.status}) is no JSON.`);
  }
}

/** What an answer that is no success says. */
export async function refused(answer: Response): Promise<ApiError> {
  const status = (await body(answer)) as Partial<Schemas["Status"]>;
  let reason = "";
  let fields: FieldViolation[] = [];
  for (const detail of status.details ?? []) {
    if ("reason" in detail) reason = detail.reason;
    if ("field_violations" in detail) fields = detail.field_violations;
  }
  return new ApiError(answer.status, reason, status.message ?? `HTTP ${answer.status}`, fields);
}
