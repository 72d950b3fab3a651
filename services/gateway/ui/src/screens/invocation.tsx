import { useState } from "react";
import { get, post, type Invocation } from "../api/client";
import * as format from "../format";
import { useLive } from "../live";
import { Icon } from "../parts/icons";
import { Facts, LogView, Outcome, Timeline, useWatch } from "../parts/invocation";
import { Json } from "../parts/lines";
import { Command, Copy, Failure, Loading } from "../parts/notice";
import { Status, hasEnded } from "../parts/status";
import { go, href } from "../router";

export function InvocationScreen({ id }: { id: string }) {
  const { invocation: data, lines, error } = useWatch(id);
  // What was given never changes: it is read once, by itself.
  const given = useLive(
    `payload/${id}`,
    async (signal) => {
      const path = { invocation_id: id };
      const { payload } = await get("/invocations/{invocation_id}", { path, signal });
      return { payload: payload ?? null };
    },
    0,
  );
  if (!data) return error ? <Failure error={error} /> : <Loading rows={5} />;
  return (
    <>
      <Head invocation={data} given={given.data} />
      <section className="card" aria-label="Timing">
        <Timeline invocation={data} />
      </section>
      <div className="split">
        <div className="stack">
          <section className="card" aria-labelledby="result">
            <div className="card-head">
              <h2 id="result">{data.error ? "Error" : "Result"}</h2>
            </div>
            <Outcome invocation={data} />
          </section>
          <section className="card" aria-labelledby="log">
            <div className="card-head">
              <h2 id="log">Log</h2>
            </div>
            <LogView invocation={data} lines={lines} />
          </section>
        </div>
        <div className="stack">
          <section className="card" aria-labelledby="payload">
            <div className="card-head">
              <h2 id="payload">Payload</h2>
            </div>
            {given.data ? (
              <Json label="Payload" value={given.data.payload} name={`${id}-payload`} />
            ) : given.error ? (
              <Failure error={given.error} />
            ) : (
              <Loading rows={2} />
            )}
          </section>
          <section className="card card-pad" aria-label="Facts">
            <About invocation={data} />
          </section>
        </div>
      </div>
    </>
  );
}

function Head(props: { invocation: Invocation; given: { payload: unknown } | undefined }) {
  const { invocation, given } = props;
  const [error, setError] = useState<Error>();
  const [busy, setBusy] = useState(false);
  const again = async () => {
    setBusy(true);
    setError(undefined);
    try {
      const { function_id, labels } = invocation;
      const made = await post("/invoke", { body: { function_id, payload: given?.payload, labels } });
      go(href("invocations", made.id));
    } catch (failure) {
      setError(failure as Error);
    } finally {
      setBusy(false);
    }
  };
  return (
    <>
      <header className="head">
        <div className="head-main">
          <p className="crumbs">
            <a href={href("invocations")}>Invocations</a>
          </p>
          <h1 className="title-with-status">
            <a className="quiet-link" href={href("functions", invocation.function_name)}>
              {invocation.function_name}
            </a>
            <Status status={invocation.status} />
          </h1>
          <p className="faint small id-line">
            <code>{invocation.id}</code> <Copy text={invocation.id} label="Copy id" />
          </p>
        </div>
        <div className="actions">
          {hasEnded(invocation.status) && given && (
            <button type="button" className="button" disabled={busy} onClick={() => void again()}>
              <Icon name="repeat" /> Invoke again
            </button>
          )}
        </div>
      </header>
      {error && <Failure error={error} />}
    </>
  );
}

function About({ invocation }: { invocation: Invocation }) {
  const { metrics } = invocation;
  const { labels } = invocation;
  return (
    <>
      <Facts
        facts={[
          ["Version", `v${invocation.function_version}`],
          ["Attempt", String(invocation.attempt)],
          ["Accepted", format.moment(invocation.created_at)],
          ["Started", invocation.started_at && format.moment(invocation.started_at)],
          ["Ended", invocation.completed_at && format.moment(invocation.completed_at)],
          [
            "Next attempt",
            invocation.status === "PENDING" &&
              invocation.next_attempt_at &&
              format.moment(invocation.next_attempt_at),
          ],
          ["CPU time", metrics?.cpu_time && format.duration(format.ms(metrics.cpu_time))],
          ["Peak memory", metrics?.peak_memory_bytes && format.bytes(metrics.peak_memory_bytes)],
          [
            "Start",
            metrics &&
              metrics.start_kind !== "START_KIND_UNSPECIFIED" &&
              metrics.start_kind.toLowerCase(),
          ],
          ["Worker", invocation.worker_id && <code>{format.short(invocation.worker_id)}</code>],
          ["Image", invocation.runtime_image && <code className="cut">{invocation.runtime_image}</code>],
          [
            "Labels",
            Object.keys(labels).length > 0 && (
              <span className="tags">
                {Object.entries(labels).map(([name, value]) => (
                  <span key={name} className="tag">
                    {name}={value}
                  </span>
                ))}
              </span>
            ),
          ],
        ]}
      />
      <h3>From a terminal</h3>
      <Command text={`curl '${window.location.origin}/invocations/${invocation.id}?wait=30s'`} />
    </>
  );
}
