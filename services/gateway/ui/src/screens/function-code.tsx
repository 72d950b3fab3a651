import { useRef, useState } from "react";
import { ApiError, call, code as readCode, get, post } from "../api/client";
import * as format from "../format";
import { useLive } from "../live";
import { Editor } from "../parts/editor";
import { Icon } from "../parts/icons";
import { LogView, Outcome, Timeline, useWatch } from "../parts/invocation";
import { Failure, Loading } from "../parts/notice";
import { Status } from "../parts/status";
import { href } from "../router";
import type { Of } from "./function";

/** The text of one version's code; undefined where it is an archive. */
export async function readText(id: string, version: number, signal: AbortSignal) {
  const found = await get("/functions/{function_id}/versions/{version}", {
    path: { function_id: id, version },
    signal,
  });
  if (found.code_format !== "CODE_FORMAT_TEXT") return { found, text: undefined };
  return { found, text: await (await readCode(id, version, signal)).text() };
}

const FILES: Record<string, string> = { python: "main.py", node: "main.js", go: "main.go" };

export function Code({ fn, changed }: Of) {
  return (
    <div className="split">
      <Source fn={fn} changed={changed} />
      <Test fn={fn} />
    </div>
  );
}

function Source({ fn, changed }: Of) {
  // An edit begins on a version, and stays there whatever others deploy meanwhile.
  const [edit, setEdit] = useState<{ text: string; etag: string }>();
  const [error, setError] = useState<Error>();
  const [busy, setBusy] = useState(false);
  const { data, error: unread } = useLive(
    `code/${fn.id}/${fn.version}`,
    (signal) => readText(fn.id, fn.version, signal),
    0,
  );

  const deploy = async () => {
    if (!edit || busy) return;
    setBusy(true);
    setError(undefined);
    try {
      await call("patch", "/functions/{function_id}", {
        path: { function_id: fn.id },
        body: { code: edit.text, etag: edit.etag },
      });
      setEdit(undefined);
      changed();
    } catch (failure) {
      setError(failure as Error);
    } finally {
      setBusy(false);
    }
  };

  if (unread && !data) return <Failure error={unread} />;
  if (!data) return <Loading rows={8} />;
  const link = `/functions/${encodeURIComponent(fn.id)}/code?version=${fn.version}`;
  if (data.text === undefined)
    return (
      <section className="card card-pad stack" aria-label="Code">
        <h2>An archive</h2>
        <p>
          Version {fn.version} was handed in as a{" "}
          {data.found.code_format === "CODE_FORMAT_ZIP" ? "zip" : "tar.gz"} of{" "}
          {format.bytes(fn.code_size_bytes)}. Its handler is <code>{fn.handler}</code>.
        </p>
        <p>
          <a className="button" href={link} download={`${fn.name}-v${fn.version}`}>
            <Icon name="download" /> Download
          </a>
        </p>
        <p className="faint small">
          To change it, upload a new one: <code>faas deploy</code>, or{" "}
          <code>curl -T app.zip {window.location.origin}/uploads</code> and a PATCH with its{" "}
          <code>upload_id</code>.
        </p>
      </section>
    );
  const text = edit?.text ?? data.text;
  const dirty = edit !== undefined && edit.text !== data.text;
  return (
    <section className="card card-editor" aria-label="Code">
      <div className="card-head">
        <span className="mono small">{FILES[fn.runtime] ?? fn.handler}</span>
        <span className="faint mono small">{fn.handler}</span>
        <span className="spacer" />
        {dirty && (
          <button type="button" className="button ghost" onClick={() => setEdit(undefined)}>
            Discard
          </button>
        )}
        <button
          type="button"
          className={dirty ? "button primary" : "button"}
          disabled={!dirty || busy}
          onClick={() => void deploy()}
        >
          {busy ? "Deploying …" : dirty ? `Deploy v${fn.version + 1}` : `v${fn.version} deployed`}
        </button>
      </div>
      {error && <Failure error={error} />}
      <Editor
        className="editor-tall"
        language={fn.runtime}
        label={`Code of ${fn.name}`}
        value={text}
        onChange={(value) => {
          setEdit((old) => {
            if (old) return { ...old, text: value };
            return value === data.text ? undefined : { text: value, etag: fn.etag };
          });
        }}
        onSubmit={() => void deploy()}
      />
    </section>
  );
}

const payloads = new Map<string, string>(); // as typed, by function, while the page lives

function Test({ fn }: { fn: Of["fn"] }) {
  const [payload, setPayload] = useState(payloads.get(fn.id) ?? '{\n  "name": "Ada"\n}');
  const [error, setError] = useState<Error>();
  const [called, setCalled] = useState("");
  const [busy, setBusy] = useState(false);
  const latest = useRef(payload);

  const invoke = async () => {
    if (busy) return;
    setError(undefined);
    const text = latest.current.trim() || "null";
    try {
      JSON.parse(text);
    } catch (failure) {
      setError(new Error(`The payload is no JSON: ${(failure as Error).message}`));
      return;
    }
    setBusy(true);
    try {
      // The text itself: large numbers stay what they are.
      const body = `{"function_id":${JSON.stringify(fn.id)},"payload":${text}}`;
      setCalled((await post("/invoke", { body })).id);
    } catch (failure) {
      setError(failure as ApiError);
    } finally {
      setBusy(false);
    }
  };

  return (
    <section className="card" aria-label="Test">
      <div className="card-head">
        <h2>Test</h2>
        <span className="spacer" />
        <span className="faint small keys">
          <kbd>Ctrl</kbd> <kbd>Enter</kbd>
        </span>
        <button
          type="button"
          className="button primary"
          disabled={busy}
          onClick={() => void invoke()}
        >
          <Icon name="play" /> Invoke
        </button>
      </div>
      <Editor
        className="editor-payload"
        language="json"
        label="Payload"
        value={payload}
        onChange={(value) => {
          latest.current = value;
          payloads.set(fn.id, value);
          setPayload(value);
        }}
        onSubmit={() => void invoke()}
      />
      {error && <Failure error={error} />}
      {called ? (
        <Answer key={called} id={called} />
      ) : (
        <p className="faint quiet">Result and log of a test call appear here.</p>
      )}
    </section>
  );
}

function Answer({ id }: { id: string }) {
  const { invocation, lines, error } = useWatch(id);
  if (!invocation) return error ? <Failure error={error} /> : <Loading rows={2} />;
  return (
    <div className="answer" aria-live="polite">
      <div className="card-head">
        <Status status={invocation.status} />
        <span className="faint small">
          {format.duration(format.ms(invocation.metrics?.duration))}
        </span>
        <span className="spacer" />
        <a className="small" href={href("invocations", id)}>
          Open
        </a>
      </div>
      <Timeline invocation={invocation} />
      <h3>{invocation.error ? "Error" : "Result"}</h3>
      <Outcome invocation={invocation} />
      <h3>Log</h3>
      <LogView invocation={invocation} lines={lines} />
    </div>
  );
}
