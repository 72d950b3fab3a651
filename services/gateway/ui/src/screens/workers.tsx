import { useState } from "react";
import { get, post, type Invocation, type Worker } from "../api/client";
import * as format from "../format";
import { useLive, useNow } from "../live";
import { Meter } from "../parts/charts";
import { Command, Empty, Failure, Loading } from "../parts/notice";
import { Status } from "../parts/status";
import { href } from "../router";
import { Sandboxes } from "./worker-sandboxes";

export const readWorkers = async (signal: AbortSignal) =>
  (await get("/workers", { query: { page_size: 1000 }, signal })).workers;

const MOST_SHOWN = 8; // of what one worker runs

const readRunning = async (signal: AbortSignal) => {
  const query = { status: "RUNNING", page_size: 1000 } as const;
  const { invocations } = await get("/invocations", { query, signal });
  return Map.groupBy(invocations, (each) => each.worker_id);
};

export function Workers() {
  const { data, error, refresh } = useLive("workers", readWorkers, 2000);
  const running = useLive("running", readRunning, 2000);
  const now = useNow();
  return (
    <>
      <header className="head">
        <h1>Workers</h1>
      </header>
      {error && !data && <Failure error={error} />}
      {!error && !data && <Loading rows={3} />}
      {data?.length === 0 && (
        <Empty title="No worker is here">
          <p>
            Workers run the functions. Without one, invocations are accepted and wait. Start one
            beside this server:
          </p>
          <Command text="faas up --workers 2" />
        </Empty>
      )}
      <ul className="workers">
        {data?.map((worker) => (
          <li key={worker.id} className="card card-pad">
            <OneWorker worker={worker} now={now} changed={refresh} />
            <Runs now={now} invocations={running.data?.get(worker.id) ?? []} />
            {worker.state !== "LOST" && <Sandboxes worker={worker} />}
          </li>
        ))}
      </ul>
    </>
  );
}

/** What a worker has in hands. */
function Runs({ now, invocations }: { now: number; invocations: Invocation[] }) {
  if (!invocations.length) return null;
  return (
    <ul className="feed runs" aria-label="Running here">
      {invocations.slice(0, MOST_SHOWN).map((each) => (
        <li key={each.id}>
          <a className="truncate" href={href("invocations", each.id)}>
            {each.function_name}
          </a>
          <span className="faint small tabular">
            {format.duration(Math.max(0, now - Date.parse(each.started_at ?? "")))}
          </span>
        </li>
      ))}
      {invocations.length > MOST_SHOWN && (
        <li className="faint small">and {format.count(invocations.length - MOST_SHOWN)} more</li>
      )}
    </ul>
  );
}

function OneWorker(props: { worker: Worker; now: number; changed: () => void }) {
  const { worker, now, changed } = props;
  const [error, setError] = useState<Error>();
  const [busy, setBusy] = useState(false);
  const away = worker.state === "DRAINING" || worker.state === "DRAINED";
  const turn = async () => {
    setBusy(true);
    setError(undefined);
    const path = away ? "/workers/{worker_id}:resume" : "/workers/{worker_id}:drain";
    try {
      await post(path, { path: { worker_id: worker.id }, body: {} });
      changed();
    } catch (failure) {
      setError(failure as Error);
    } finally {
      setBusy(false);
    }
  };
  return (
    <>
      <div className="worker-head">
        <div>
          <h2>{worker.host}</h2>
          <p className="faint small mono truncate">{worker.id}</p>
        </div>
        <Status status={worker.state} />
      </div>
      <p className="worker-load">
        <Meter label={`Load of ${worker.host}`} value={worker.running} max={worker.concurrency} />
        <span className="tabular">
          {worker.running} of {worker.concurrency} <span className="faint">in use</span>
        </span>
      </p>
      <p className="tags">
        {worker.runtimes.map((runtime) => (
          <span key={runtime.name} className="tag" title={runtime.image}>
            {runtime.name}
          </span>
        ))}
      </p>
      <p className="faint small">
        Up {format.duration(now - Date.parse(worker.started_at ?? ""))} · heard of{" "}
        {format.ago(worker.last_seen_at, now)} · {worker.version}
      </p>
      {error && <Failure error={error} />}
      {worker.state === "LOST" ? (
        <p className="faint small">
          Not heard of for longer than a lease: what it ran was given to others.
        </p>
      ) : (
        <button type="button" className="button" disabled={busy} onClick={() => void turn()}>
          {away ? "Resume" : "Drain"}
        </button>
      )}
    </>
  );
}
