import type { ReactNode } from "react";
import { get, health, type Invocation, type Stats } from "../api/client";
import * as format from "../format";
import { useLive, useNow } from "../live";
import { Bars, Meter, Spark } from "../parts/charts";
import { Failure, Loading } from "../parts/notice";
import { Status } from "../parts/status";
import { href } from "../router";
import { summarize, type Summary } from "../summary";
import { None } from "./functions";
import { readWorkers } from "./workers";

const SPAN_MS = 15 * 60_000;
const BUCKETS = 45;
const MOST = 1000;

async function readRecent(signal: AbortSignal) {
  const now = Date.now();
  const created_after = new Date(now - SPAN_MS).toISOString();
  const [recent, stats] = await Promise.all([
    get("/invocations", { query: { page_size: MOST, created_after }, signal }),
    get("/stats", { query: { window: "60s" }, signal }),
  ]);
  const { invocations } = recent;
  return {
    invocations,
    summary: summarize(invocations, now, SPAN_MS, BUCKETS, recent.next_page_token !== ""),
    stats,
  };
}

export function Overview() {
  const recent = useLive("overview", readRecent, 3000);
  const functions = useLive(
    "any-function",
    (signal) => get("/functions", { query: { page_size: 1 }, signal }),
    5000,
  );
  const { data } = recent;
  if (!data || !functions.data) {
    const error = recent.error ?? functions.error;
    return error ? <Failure error={error} /> : <Loading rows={6} />;
  }
  const { summary } = data;
  if (!functions.data.functions.length && !data.invocations.length)
    return (
      <>
        <header className="head">
          <h1>Overview</h1>
        </header>
        <None />
      </>
    );
  return (
    <>
      <header className="head">
        <h1>Overview</h1>
        <span className="live" title="Read again every three seconds while you look">
          <span className="dot" aria-hidden="true" /> Last {format.duration(summary.spanMs)}
        </span>
      </header>
      <Tiles summary={summary} stats={data.stats} />
      <Traffic summary={summary} />
      <div className="columns">
        <Busiest summary={summary} />
        <Failures invocations={data.invocations} />
        <Parts />
      </div>
    </>
  );
}

function Tile(props: { name: string; value: string; about: ReactNode; spark?: ReactNode; bad?: boolean }) {
  return (
    <div className={`tile ${props.bad ? "tile-bad" : ""}`}>
      <dt>{props.name}</dt>
      <dd>
        <strong className="tabular">{props.value}</strong>
        <span className="faint small">{props.about}</span>
      </dd>
      {props.spark}
    </div>
  );
}

function Tiles({ summary, stats }: { summary: Summary; stats: Stats }) {
  const oldest = format.ms(stats.oldest_queued);
  const { buckets } = summary;
  const rate = summary.total / (summary.spanMs / 60_000);
  const errors = summary.ended ? summary.failed / summary.ended : 0;
  return (
    <dl className="tiles">
      <Tile
        name="Invocations"
        value={`${rate >= 100 ? format.count(Math.round(rate)) : Number(rate.toFixed(1))}/min`}
        about={`${format.count(summary.total)} accepted`}
        spark={<Spark values={buckets.map((b) => b.completed + b.failed + b.open)} />}
      />
      <Tile
        name="Errors"
        value={format.percent(errors)}
        bad={errors > 0.05}
        about={`${format.count(summary.failed)} of ${format.count(summary.ended)} ended`}
        spark={<Spark className="spark-bad" values={buckets.map((b) => b.failed)} />}
      />
      <Tile
        name="Latency"
        value={format.duration(summary.p50)}
        about={`95 of 100 within ${format.duration(summary.p95)}`}
        spark={<Spark values={buckets.map((b) => b.p95 ?? 0)} />}
      />
      <Tile
        name="Queue"
        value={format.count(Number(stats.queued))}
        about={
          oldest !== undefined && oldest > 1000
            ? `waiting, up to ${format.duration(oldest)} · ${format.count(Number(stats.running))} running`
            : `waiting · ${format.count(Number(stats.running))} running`
        }
      />
    </dl>
  );
}

function Traffic({ summary }: { summary: Summary }) {
  const bars = summary.buckets.map((bucket) => ({
    values: [bucket.completed, bucket.failed, bucket.open],
    title: `${format.clock(new Date(bucket.at).toISOString()).slice(0, 8)}: ${bucket.completed} completed, ${bucket.failed} failed, ${bucket.open} open`,
  }));
  return (
    <section className="card" aria-labelledby="traffic">
      <div className="card-head">
        <h2 id="traffic">Traffic</h2>
        <span className="spacer" />
        <ul className="legend small">
          <li>
            <span className="swatch bar-ok" /> completed
          </li>
          <li>
            <span className="swatch bar-bad" /> failed
          </li>
          <li>
            <span className="swatch bar-open" /> open
          </li>
        </ul>
      </div>
      <div className="plot-box">
        <Bars
          label={`Invocations of the last ${format.duration(summary.spanMs)}: ${summary.total} accepted, ${summary.failed} failed`}
          bars={bars}
          classes={["bar-ok", "bar-bad", "bar-open"]}
        />
        <div className="axis faint small" aria-hidden="true">
          <span>{format.duration(summary.spanMs)} ago</span>
          <span>now</span>
        </div>
      </div>
    </section>
  );
}

function Busiest({ summary }: { summary: Summary }) {
  const most = summary.busiest[0]?.calls ?? 1;
  return (
    <section className="card" aria-labelledby="busiest">
      <div className="card-head">
        <h2 id="busiest">Busiest functions</h2>
      </div>
      {summary.busiest.length === 0 && <p className="faint quiet">Nothing was called lately.</p>}
      <ul className="ranked">
        {summary.busiest.map((each) => (
          <li key={each.name}>
            <a className="truncate" href={href("functions", each.name, "activity")}>
              {each.name}
            </a>
            <Meter label={`Calls of ${each.name}`} value={each.calls} max={most} />
            <span className="tabular">{format.count(each.calls)}</span>
            <span className="faint small tabular">{format.duration(each.p95)}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Failures({ invocations }: { invocations: Invocation[] }) {
  const now = useNow();
  const failed = invocations.filter((each) => each.error).slice(0, 6);
  return (
    <section className="card" aria-labelledby="failures">
      <div className="card-head">
        <h2 id="failures">Latest failures</h2>
      </div>
      {failed.length === 0 && <p className="faint quiet">None. Long may it last.</p>}
      <ul className="feed">
        {failed.map((each) => (
          <li key={each.id}>
            <a className="truncate" href={href("invocations", each.id)}>
              <strong>{each.function_name}</strong>{" "}
              <span className="faint">
                {each.error?.type || each.error?.code}: {each.error?.message}
              </span>
            </a>
            <span className="faint small">{format.ago(each.created_at, now)}</span>
          </li>
        ))}
      </ul>
    </section>
  );
}

function Parts() {
  const parts = useLive("health", health, 5000);
  const workers = useLive("workers", readWorkers, 3000);
  return (
    <section className="card" aria-labelledby="parts">
      <div className="card-head">
        <h2 id="parts">Parts</h2>
      </div>
      <ul className="feed">
        {parts.data?.parts.map((part) => (
          <li key={part.name}>
            <span>{part.name}</span>
            <span className="faint small truncate">{part.detail}</span>
            <span className={part.status === "SERVING" ? "part-ok" : "part-bad"}>
              {part.status === "SERVING" ? `${part.latency_ms.toFixed(1)} ms` : "away"}
            </span>
          </li>
        ))}
      </ul>
      {workers.data && (
        <ul className="feed feed-next">
          {workers.data.length === 0 && (
            <li>
              <a href={href("workers")}>No worker is here</a>
            </li>
          )}
          {workers.data.slice(0, 6).map((worker) => (
            <li key={worker.id}>
              <a className="truncate" href={href("workers")}>
                {worker.host} <code className="faint">{worker.id.slice(-4)}</code>
              </a>
              <span className="faint small tabular">
                {worker.running} of {worker.concurrency}
              </span>
              <Status status={worker.state} />
            </li>
          ))}
        </ul>
      )}
    </section>
  );
}
