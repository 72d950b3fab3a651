import { useState } from "react";
import { ApiError, call, get, type Fn } from "../api/client";
import * as format from "../format";
import { useLive, useNow } from "../live";
import { Dialog } from "../parts/dialog";
import { Icon } from "../parts/icons";
import { Command, Copy, Failure, Loading, invokeCommand } from "../parts/notice";
import { BuildState } from "../parts/status";
import { go, href } from "../router";
import { Activity } from "./function-activity";
import { Code } from "./function-code";
import { Schedules } from "./function-schedules";
import { Settings } from "./function-settings";
import { Versions } from "./function-versions";

const TABS = {
  code: "Code",
  activity: "Activity",
  versions: "Versions",
  schedules: "Schedules",
  settings: "Settings",
};

export interface Of {
  fn: Fn;
  /** Read it again: it was changed. */
  changed: () => void;
}

export function FunctionScreen({ name, tab }: { name: string; tab: string }) {
  const { data, error, refresh } = useLive(
    `function/${name}`,
    (signal) => get("/functions/{function_id}", { path: { function_id: name }, signal }),
    (fn) => (fn.state === "BUILDING" ? 1000 : 5000),
  );
  if (!data) return error ? <Failure error={error} /> : <Loading rows={5} />;
  const shown = tab in TABS ? tab : "code";
  const of: Of = { fn: data, changed: refresh };
  return (
    <>
      <Head fn={data} gone={error instanceof ApiError && error.status === 404} />
      <Build fn={data} />
      <nav className="tabs" aria-label="Parts of the function">
        {Object.entries(TABS).map(([id, title]) => (
          <a
            key={id}
            href={href("functions", name, id)}
            aria-current={id === shown ? "page" : undefined}
          >
            {title}
          </a>
        ))}
      </nav>
      {shown === "code" && <Code key={data.id} {...of} />}
      {shown === "activity" && <Activity {...of} />}
      {shown === "versions" && <Versions {...of} />}
      {shown === "schedules" && <Schedules key={data.id} {...of} />}
      {shown === "settings" && <Settings key={data.id} {...of} />}
    </>
  );
}

/** Why its latest version cannot run, or not yet. */
function Build({ fn }: { fn: Fn }) {
  if (fn.state === "BUILDING")
    return (
      <p className="build" role="status">
        <BuildState state={fn.state} />{" "}
        <span className="muted">
          v{fn.version} is being compiled; what is invoked meanwhile waits.
          {fn.state_reason && ` ${fn.state_reason}`}
        </span>
      </p>
    );
  if (fn.state !== "FAILED") return null;
  return (
    <div className="failure build" role="alert">
      <p className="failure-title">v{fn.version} does not compile. Calls of it fail.</p>
      <pre className="stack" tabIndex={0} aria-label="What the compiler says">
        {fn.state_reason}
      </pre>
    </div>
  );
}

function Head({ fn, gone }: { fn: Fn; gone: boolean }) {
  const now = useNow();
  const [calling, setCalling] = useState(false);
  const [deleting, setDeleting] = useState(false);
  return (
    <header className="head">
      <div className="head-main">
        <p className="crumbs">
          <a href={href("functions")}>Functions</a>
        </p>
        <h1>{fn.name}</h1>
        {fn.description && <p className="muted">{fn.description}</p>}
        <p className="faint small facts-line">
          <span className="tag">{fn.runtime}</span>
          <span>v{fn.version}</span>
          <span>{fn.memory_mb} MiB</span>
          <span>
            {fn.cpus} {fn.cpus === 1 ? "core" : "cores"}
          </span>
          <span>timeout {format.duration(format.ms(fn.timeout))}</span>
          <span title={format.moment(fn.updated_at)}>changed {format.ago(fn.updated_at, now)}</span>
        </p>
        {gone && <p className="field-wrong">This function has been deleted.</p>}
      </div>
      <div className="actions">
        <button type="button" className="button" onClick={() => setCalling(true)}>
          Call it …
        </button>
        <button type="button" className="button ghost" onClick={() => setDeleting(true)}>
          Delete …
        </button>
      </div>
      {calling && (
        <Dialog title={`Call ${fn.name}`} onClose={() => setCalling(false)}>
          <p>From a terminal, with any JSON as the payload:</p>
          <Command text={invokeCommand(fn.name)} />
          <p className="faint small id-line">
            <code>{fn.id}</code> <Copy text={fn.id} label="Copy id" />
          </p>
          <form method="dialog" className="actions end">
            <button type="submit" className="button">
              Close
            </button>
          </form>
        </Dialog>
      )}
      {deleting && <Delete fn={fn} onClose={() => setDeleting(false)} />}
    </header>
  );
}

function Delete({ fn, onClose }: { fn: Fn; onClose: () => void }) {
  const [error, setError] = useState<Error>();
  const [busy, setBusy] = useState(false);
  const remove = async () => {
    setBusy(true);
    try {
      await call("delete", "/functions/{function_id}", {
        path: { function_id: fn.id },
        query: { etag: fn.etag },
      });
      go(href("functions"));
    } catch (failure) {
      setError(failure as Error);
      setBusy(false);
    }
  };
  return (
    <Dialog title={`Delete ${fn.name}?`} onClose={onClose}>
      <p>
        It takes no new invocations and its name is free again at once. What was accepted still
        runs, and its history stays readable.
      </p>
      {error && <Failure error={error} />}
      <form method="dialog" className="actions end">
        <button type="submit" className="button">
          Keep it
        </button>
        <button type="button" className="button danger" disabled={busy} onClick={() => void remove()}>
          <Icon name="close" /> Delete function
        </button>
      </form>
    </Dialog>
  );
}
