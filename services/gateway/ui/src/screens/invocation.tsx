import type { ReactNode } from "react";
import { get, type Invocation } from "../api/client";
import * as format from "../format";
import { useLive } from "../live";
import { Content } from "../parts/content";
import { Facts, LogView, Outcome, Timeline, useWatch } from "../parts/invocation";
import { Command, Failure, Loading } from "../parts/notice";
import { href } from "../router";
import { Head } from "./invocation-head";
import { Compared, Story } from "./invocation-story";

export function InvocationScreen({ id }: { id: string }) {
  const { invocation: data, lines, error } = useWatch(id);
  // What was given never changes: it is read once, by itself.
  const given = useLive(
    `payload/${id}`,
    (signal) => get("/invocations/{invocation_id}", { path: { invocation_id: id }, signal }),
    0,
  );
  if (!data) return error ? <Failure error={error} /> : <Loading rows={5} />;
  return (
    <>
      <Head invocation={data} />
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
          <Compared invocation={data} />
          <section className="card" aria-labelledby="log">
            <div className="card-head">
              <h2 id="log">Log</h2>
            </div>
            <LogView invocation={data} lines={lines} />
          </section>
          <Story invocation={data} />
        </div>
        <div className="stack">
          <section className="card" aria-labelledby="payload">
            <div className="card-head">
              <h2 id="payload">Payload</h2>
            </div>
            {given.data ? (
              <Content
                id={id}
                what="payload"
                type={given.data.payload_type}
                value={given.data.payload}
                size={given.data.large_payload?.size_bytes}
              />
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

function Link({ id }: { id: string }) {
  return (
    <a href={href("invocations", id)}>
      <code>{format.short(id)}</code>
    </a>
  );
}

function facts(invocation: Invocation): [name: string, value: ReactNode][] {
  const { metrics, labels, function_name } = invocation;
  return [
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
    ["Replays", invocation.replay_of && <Link id={invocation.replay_of} />],
    ["Takes up", invocation.redrive_of && <Link id={invocation.redrive_of} />],
    [
      "Schedule",
      invocation.schedule_id && (
        <a href={href("functions", function_name, "schedules")}>
          <code>{format.short(invocation.schedule_id)}</code>
        </a>
      ),
    ],
    ["Request id", invocation.request_id && <code>{invocation.request_id}</code>],
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
  ];
}

function About({ invocation }: { invocation: Invocation }) {
  return (
    <>
      <Facts facts={facts(invocation)} />
      <h3>From a terminal</h3>
      <Command text={`curl '${window.location.origin}/invocations/${invocation.id}?wait=30s'`} />
    </>
  );
}
