// One invocation, followed until it ends: used by its own screen and by a test call.
import { useEffect, useState, type ReactNode } from "react";
import { ApiError, type Invocation, type LogLine } from "../api/client";
import { watch } from "../api/watch";
import * as format from "../format";
import { connection, useNow } from "../live";
import { Content } from "./content";
import { Icon } from "./icons";
import { Lines, download } from "./lines";
import { hasEnded } from "./status";

export interface Watched {
  /** Without its payload; with its result once it has ended. */
  invocation: Invocation | undefined;
  lines: LogLine[];
  error: Error | undefined;
}

const RETRY_MS = [250, 500, 1000, 2000, 4000] as const;

/** States and lines as they come, until it has ended; not while the page is hidden. */
export function useWatch(id: string): Watched {
  const [seen, setSeen] = useState<Watched & { id: string }>();

  useEffect(() => {
    const gone = new AbortController();
    const lines: LogLine[] = []; // only ever grows: 100,000 of them are not copied each time
    let invocation: Invocation | undefined;
    let cursor = "";
    let look: AbortController | undefined;
    let failures = 0;
    let timer: number | undefined;

    const follow = async () => {
      const mine = (look = new AbortController());
      const stop = AbortSignal.any([gone.signal, mine.signal]);
      try {
        for await (const events of watch(id, cursor, stop)) {
          failures = 0;
          connection.report(undefined);
          for (const event of events) {
            for (const line of event.lines) lines.push(line);
            invocation = event.invocation ?? invocation;
            cursor = event.cursor || cursor;
          }
          setSeen({ id, invocation, lines, error: undefined });
          if (events.some((event) => event.last)) return;
        }
      } catch (error) {
        if (stop.aborted) return;
        const failure = error instanceof Error ? error : new Error(String(error));
        const away = failure instanceof ApiError && failure.isAway;
        if (away) connection.report(failure.message);
        setSeen({ id, invocation, lines, error: failure });
        if (failure instanceof ApiError && !away) return;
      }
      if (stop.aborted) return;
      timer = window.setTimeout(
        () => void follow(),
        RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)],
      );
    };
    const onVisibility = () => {
      window.clearTimeout(timer);
      look?.abort();
      if (!document.hidden && !(invocation && hasEnded(invocation.status))) void follow();
    };
    document.addEventListener("visibilitychange", onVisibility);
    if (!document.hidden) void follow();
    return () => {
      gone.abort();
      window.clearTimeout(timer);
      document.removeEventListener("visibilitychange", onVisibility);
    };
  }, [id]);

  return seen?.id === id ? seen : { invocation: undefined, lines: [], error: undefined };
}

export function LogView({ invocation, lines }: { invocation: Invocation; lines: LogLine[] }) {
  const ended = hasEnded(invocation.status);
  if (!lines.length)
    return (
      <p className="faint quiet">
        {ended ? "It printed nothing." : "Nothing printed yet."} What a function writes to standard
        output and error appears here.
      </p>
    );
  const attempts = lines[lines.length - 1]?.attempt !== lines[0]?.attempt;
  return (
    <div className="json">
      <div className="json-actions">
        <button
          type="button"
          className="button ghost icon-only"
          aria-label="Download log"
          title="Download"
          onClick={() =>
            download(
              `${invocation.id}.log`,
              lines.map((line) => `${line.time ?? ""} ${line.stream} ${line.text}\n`).join(""),
              "text/plain",
            )
          }
        >
          <Icon name="download" />
        </button>
      </div>
      <Lines
        label="Log"
        lines={lines}
        follow={!ended}
        textOf={(line) => line.text}
        classOf={(line) => (line.stream === "STDERR" ? "line-stderr" : "")}
        before={(line) => (
          <>
            <span className="line-time">{format.clock(line.time)}</span>
            {attempts && <span className="line-attempt">#{line.attempt}</span>}
          </>
        )}
      />
      {invocation.logs_truncated && (
        <p className="faint small quiet">It printed more than is kept; the rest was dropped.</p>
      )}
    </div>
  );
}

/** What went wrong, with the function's own stack. */
export function Trouble({ invocation }: { invocation: Invocation }) {
  const { error } = invocation;
  if (!error) return null;
  return (
    <div className="failure" role="group" aria-label="Error">
      <p className="failure-title">
        {error.type && <span className="mono">{error.type}: </span>}
        {error.message || error.code}
      </p>
      {error.stack && (
        <pre className="stack" tabIndex={0} aria-label="Stack">
          {error.stack}
        </pre>
      )}
      <p className="faint mono small">
        {error.code}
        {error.code === "FUNCTION_CRASHED" && ` · exit code ${error.exit_code}`}
      </p>
    </div>
  );
}

export function Outcome({ invocation }: { invocation: Invocation }) {
  if (invocation.error) return <Trouble invocation={invocation} />;
  if (invocation.status === "CANCELLED")
    return <p className="faint quiet">It was cancelled before it ended.</p>;
  if (!hasEnded(invocation.status))
    return (
      <p className="faint quiet">
        {invocation.status === "PENDING" ? "Waiting for a worker …" : "Running …"}
      </p>
    );
  const { id, result, result_type, large_result: large } = invocation;
  return (
    <Content id={id} what="result" type={result_type} value={result} size={large?.size_bytes} />
  );
}

interface Phase {
  name: string;
  className: string;
  ms: number;
  about: string;
}

function phases(invocation: Invocation, now: number): Phase[] {
  const { metrics } = invocation;
  const created = Date.parse(invocation.created_at ?? "");
  const started = invocation.started_at ? Date.parse(invocation.started_at) : undefined;
  const queued = format.ms(metrics?.queued) ?? Math.max(0, (started ?? now) - created);
  const found: Phase[] = [
    { name: "Queued", className: "phase-queued", ms: queued, about: "waiting for a worker" },
  ];
  if (metrics) {
    const load = format.ms(metrics.load);
    found.push(
      {
        name: "Assigned",
        className: "phase-queued",
        ms: format.ms(metrics.assigned) ?? 0,
        about: "fetching code, asking for the start",
      },
      {
        name: "Start-up",
        className: "phase-startup",
        ms: format.ms(metrics.startup) ?? 0,
        about: "getting a sandbox",
      },
      {
        name: "Run",
        className: "phase-run",
        ms: format.ms(metrics.run) ?? 0,
        about: load
          ? `in the function's hands, ${format.duration(load)} of it loading the code`
          : "in the function's hands",
      },
      {
        name: "Report",
        className: "phase-startup",
        ms: format.ms(metrics.report) ?? 0,
        about: "from its answer to the record",
      },
    );
  } else if (started !== undefined) {
    found.push({
      name: "Running",
      className: "phase-run phase-live",
      ms: Math.max(0, now - started),
      about: "start-up included",
    });
  }
  return found;
}

/** Where the time went. */
export function Timeline({ invocation }: { invocation: Invocation }) {
  const now = useNow();
  const found = phases(invocation, now);
  const whole = Math.max(1, found.reduce((sum, phase) => sum + phase.ms, 0));
  return (
    <div className="timeline" role="group" aria-label="Timeline">
      <div className="timeline-bar" aria-hidden="true">
        {found.map((phase) => (
          <span
            key={phase.name}
            className={phase.className}
            style={{ flexGrow: Math.max(phase.ms / whole, 0.004) }}
          />
        ))}
      </div>
      <dl className="timeline-legend">
        {found.map((phase) => (
          <div key={phase.name}>
            <dt>
              <span className={`swatch ${phase.className}`} aria-hidden="true" /> {phase.name}
            </dt>
            <dd>
              <strong className="tabular">{format.duration(phase.ms)}</strong>
              <span className="faint small"> {phase.about}</span>
            </dd>
          </div>
        ))}
      </dl>
    </div>
  );
}

export function Facts({ facts }: { facts: [name: string, value: ReactNode][] }) {
  return (
    <dl className="facts">
      {facts
        .filter(([, value]) => value !== undefined && value !== "" && value !== false)
        .map(([name, value]) => (
          <div key={name}>
            <dt>{name}</dt>
            <dd>{value}</dd>
          </div>
        ))}
    </dl>
  );
}
