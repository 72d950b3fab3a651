// Counts and latencies of a function over a window, as the platform keeps them.
import { useState } from "react";
import { get, type Fn, type Stats } from "../api/client";
import * as format from "../format";
import { useLive } from "../live";
import { Ranges, type Range } from "../parts/charts";
import { Failure, Loading } from "../parts/notice";
import { statusWord } from "../parts/status";

const WINDOWS = { "3600s": "Hour", "86400s": "Day", "604800s": "Week", "2592000s": "30 days" };
type Window = keyof typeof WINDOWS;

const PHASES: Record<string, string> = {
  queued: "Queued",
  assigned: "Assigned",
  startup: "Start-up",
  load: "Loading the code",
  run: "Run",
  report: "Report",
  duration: "All together",
};

export function Metrics({ fn }: { fn: Fn }) {
  const [window_, setWindow] = useState<Window>("3600s");
  const { data, error } = useLive(
    `stats/${fn.id}/${window_}`,
    (signal) => get("/stats", { query: { function_id: fn.id, window: window_ }, signal }),
    5000,
  );
  return (
    <section className="card" aria-labelledby="metrics">
      <div className="card-head">
        <h2 id="metrics">Metrics</h2>
        <span className="spacer" />
        <div className="segments" role="radiogroup" aria-label="Window">
          {(Object.entries(WINDOWS) as [Window, string][]).map(([id, title]) => (
            <label key={id}>
              <input
                type="radio"
                name="window"
                checked={window_ === id}
                onChange={() => setWindow(id)}
              />
              {title}
            </label>
          ))}
        </div>
      </div>
      {!data && (error ? <Failure error={error} /> : <Loading rows={3} />)}
      {data && <Figures stats={data} />}
    </section>
  );
}

function Figures({ stats }: { stats: Stats }) {
  const counts = stats.counts.map((each) => ({ ...each, count: Number(each.count) }));
  const total = counts.reduce((sum, each) => sum + each.count, 0);
  const good = counts.find((each) => each.status === "COMPLETED")?.count ?? 0;
  return (
    <>
      <dl className="figures">
        <Figure name="Ended" value={format.count(total)} />
        <Figure name="Errors" value={total ? format.percent((total - good) / total) : "–"} />
        <Figure name="Running now" value={format.count(Number(stats.running))} />
        <Figure name="Queued now" value={format.count(Number(stats.queued))} />
        {stats.delayed !== "0" && (
          <Figure name="Waiting for their moment" value={format.count(Number(stats.delayed))} />
        )}
      </dl>
      {total === 0 ? (
        <p className="faint quiet">Nothing ended within this time.</p>
      ) : (
        <>
          <ul className="shares" aria-label="How they ended">
            {counts.map((each) => (
              <li key={each.status}>
                <span
                  className="share"
                  data-status={each.status}
                  style={{ width: `${(each.count / total) * 100}%` }}
                  aria-hidden="true"
                />
                <span className="small">
                  {statusWord(each.status)}{" "}
                  <span className="tabular muted">{format.count(each.count)}</span>
                </span>
              </li>
            ))}
          </ul>
          <Latencies stats={stats} />
        </>
      )}
    </>
  );
}

function Latencies({ stats }: { stats: Stats }) {
  const ranges = Object.entries(PHASES).flatMap(([phase, name]): Range[] => {
    const found = stats.latencies.find((each) => each.phase === phase);
    if (!found) return [];
    const values = [found.p50, found.p90, found.p99].map((each) => format.ms(each) ?? 0);
    const [p50 = 0, p90 = 0, p99 = 0] = values;
    return [{ name, values: [p50, p90, p99] }];
  });
  if (!ranges.length) return null;
  return (
    <>
      <h3>Latency: 50, 90 and 99 of 100 within</h3>
      <Ranges label="Latency by phase" ranges={ranges} ticks={format.duration} />
    </>
  );
}

export function Figure({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd className="tabular">{value}</dd>
    </div>
  );
}
