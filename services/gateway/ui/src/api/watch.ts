// An invocation as it happens: server-sent events, read by fetch so that a
// credential can go along, which EventSource cannot.
import { address, refused, send, type InvocationEvent } from "./client";

/** The server says something at least every 15 s; a stream silent for longer has broken. */
const SILENCE_MS = 40_000;

/** What is in `data:` of each event of a stream, however it was cut into chunks. */
export class EventReader {
  private parts: string[] = [];
  private ended = false; // the last character was a newline

  push(chunk: string): string[] {
    const found: string[] = [];
    let rest = chunk.replaceAll("\r", "");
    for (;;) {
      // Only what is new is looked through: an event may be 10 MiB in 200 chunks.
      const split = this.ended && rest.startsWith("\n") ? 0 : rest.indexOf("\n\n");
      if (split < 0) break;
      const event = [...this.parts, rest.slice(0, split)].join("");
      this.parts = [];
      this.ended = false;
      rest = rest.slice(split).replace(/^\n+/, "");
      const data = event
        .split("\n")
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(5).replace(/^ /, ""));
      if (data.length) found.push(data.join("\n"));
    }
    if (rest) {
      this.parts.push(rest);
      this.ended = rest.endsWith("\n");
    }
    return found;
  }
}

/** Events from `cursor` on. Ends when the stream does, broken or not. */
export async function* watch(
  id: string,
  cursor: string,
  signal: AbortSignal,
): AsyncGenerator<InvocationEvent[]> {
  const silence = new AbortController();
  const stop = AbortSignal.any([signal, silence.signal]);
  let timer = window.setTimeout(() => silence.abort(), SILENCE_MS);
  try {
    const url = address("/invocations/{invocation_id}:watch", { invocation_id: id }, { cursor });
    const answer = await send(url, {}, stop);
    if (!answer.ok || !answer.body) throw await refused(answer);
    const reader = answer.body.pipeThrough(new TextDecoderStream()).getReader();
    const events = new EventReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      window.clearTimeout(timer);
      timer = window.setTimeout(() => silence.abort(), SILENCE_MS);
      const found = events.push(value);
      if (found.length) yield found.map((text) => JSON.parse(text) as InvocationEvent);
    }
  } finally {
    window.clearTimeout(timer);
    silence.abort();
  }
}
