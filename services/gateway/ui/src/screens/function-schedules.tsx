import { useId, useState } from "react";
import { ApiError, call, get, post, type Schedule } from "../api/client";
import * as format from "../format";
import { useLive, useNow } from "../live";
import { Dialog } from "../parts/dialog";
import { Editor } from "../parts/editor";
import { TextField } from "../parts/fields";
import { Icon } from "../parts/icons";
import { Empty, Failure, Loading } from "../parts/notice";
import { href } from "../router";
import type { Of } from "./function";

const OVERLAPS = {
  ALLOW: "invoke all the same",
  SKIP: "pass over the moment",
  REPLACE: "cancel it, then invoke",
} as const;
const MISFIRES = {
  FIRE_ONCE: "once for all of them",
  SKIP_MISSED: "not at all",
  FIRE_ALL: "each of them",
} as const;

export function Schedules({ fn }: Of) {
  const [making, setMaking] = useState(false);
  const { data, error, refresh } = useLive(
    `schedules/${fn.id}`,
    (signal) => get("/schedules", { query: { function_id: fn.id, page_size: 1000 }, signal }),
    5000,
  );
  if (!data) return error ? <Failure error={error} /> : <Loading rows={4} />;
  const { schedules } = data;
  const form = (
    <Create
      fn={fn}
      done={(made) => {
        setMaking(false);
        if (made) refresh();
      }}
    />
  );
  if (!schedules.length)
    return making ? (
      form
    ) : (
      <Empty
        title="No schedules"
        action={
          <button type="button" className="button primary" onClick={() => setMaking(true)}>
            <Icon name="plus" /> New schedule
          </button>
        }
      >
        <p>
          A schedule invokes the function at the times that a cron line names, each of them exactly
          once: <code>0 9 * * MON-FRI</code> is nine o’clock on workdays.
        </p>
      </Empty>
    );
  return (
    <div className="stack">
      {making ? (
        form
      ) : (
        <p>
          <button type="button" className="button" onClick={() => setMaking(true)}>
            <Icon name="plus" /> New schedule
          </button>
        </p>
      )}
      <ul className="schedules stack" aria-label="Schedules">
        {schedules.map((schedule) => (
          <li key={schedule.id} className="card card-pad">
            <One schedule={schedule} changed={refresh} />
          </li>
        ))}
      </ul>
    </div>
  );
}

function One({ schedule, changed }: { schedule: Schedule; changed: () => void }) {
  const now = useNow();
  const [error, setError] = useState<Error>();
  const [busy, setBusy] = useState(false);
  const [deleting, setDeleting] = useState(false);
  const path = { schedule_id: schedule.id };
  const turn = async () => {
    setBusy(true);
    setError(undefined);
    try {
      const body = { paused: !schedule.paused };
      await call("patch", "/schedules/{schedule_id}", { path, body });
      changed();
    } catch (failure) {
      setError(failure as Error);
    } finally {
      setBusy(false);
    }
  };
  return (
    <>
      <div className="schedule-head">
        <div>
          <h2 className="mono">{schedule.cron}</h2>
          <p className="faint small">
            {schedule.time_zone} ·{" "}
            {schedule.function_version ? `v${schedule.function_version}` : "the latest version"}
            {schedule.overlap !== "ALLOW" &&
              ` · if it still runs: ${OVERLAPS[schedule.overlap as keyof typeof OVERLAPS]}`}
          </p>
        </div>
        <div className="actions">
          <button type="button" className="button" disabled={busy} onClick={() => void turn()}>
            {schedule.paused ? "Resume" : "Pause"}
          </button>
          <button type="button" className="button ghost" onClick={() => setDeleting(true)}>
            Delete …
          </button>
        </div>
      </div>
      <p className="small facts-line">
        {schedule.paused ? (
          <span className="tag">paused</span>
        ) : (
          <span title={format.moment(schedule.next_fire_at)}>
            next {format.ago(schedule.next_fire_at, now)}
          </span>
        )}
        {schedule.last_fire_at && (
          <span title={format.moment(schedule.last_fire_at)}>
            last {format.ago(schedule.last_fire_at, now)}
            {schedule.last_invocation_id && (
              <>
                {": "}
                <a href={href("invocations", schedule.last_invocation_id)}>
                  <code>{format.short(schedule.last_invocation_id)}</code>
                </a>
              </>
            )}
          </span>
        )}
        {schedule.skipped !== "0" && (
          <span className="faint">{format.count(Number(schedule.skipped))} passed over</span>
        )}
      </p>
      {schedule.payload != null && (
        <pre className="schedule-payload small" tabIndex={0} aria-label="Payload">
          {JSON.stringify(schedule.payload).slice(0, 2000)}
        </pre>
      )}
      {schedule.problem && <p className="field-wrong">{schedule.problem}</p>}
      {error && <Failure error={error} />}
      {deleting && (
        <Delete schedule={schedule} changed={changed} onClose={() => setDeleting(false)} />
      )}
    </>
  );
}

function Delete(props: { schedule: Schedule; changed: () => void; onClose: () => void }) {
  const { schedule, changed, onClose } = props;
  const [error, setError] = useState<Error>();
  const remove = async () => {
    setError(undefined);
    try {
      await call("delete", "/schedules/{schedule_id}", { path: { schedule_id: schedule.id } });
      onClose();
      changed();
    } catch (failure) {
      setError(failure as Error);
    }
  };
  return (
    <Dialog title="Delete this schedule?" onClose={onClose}>
      <p>
        <code>{schedule.cron}</code> fires no more. What it has invoked goes on.
      </p>
      {error && <Failure error={error} />}
      <form method="dialog" className="actions end">
        <button type="submit" className="button">
          Keep it
        </button>
        <button type="button" className="button danger" onClick={() => void remove()}>
          <Icon name="close" /> Delete schedule
        </button>
      </form>
    </Dialog>
  );
}

function Create({ fn, done }: { fn: Of["fn"]; done: (made: boolean) => void }) {
  const [cron, setCron] = useState("");
  const [zone, setZone] = useState("UTC");
  const [version, setVersion] = useState("");
  const [payload, setPayload] = useState("null");
  const [overlap, setOverlap] = useState<keyof typeof OVERLAPS>("ALLOW");
  const [misfire, setMisfire] = useState<keyof typeof MISFIRES>("FIRE_ONCE");
  const [error, setError] = useState<Error>();
  const [busy, setBusy] = useState(false);
  const zones = useId();
  const violations = error instanceof ApiError ? error.fields : [];

  const create = async () => {
    setError(undefined);
    const text = payload.trim() || "null";
    try {
      JSON.parse(text);
    } catch (failure) {
      setError(new Error(`The payload is no JSON: ${(failure as Error).message}`));
      return;
    }
    setBusy(true);
    try {
      const rest = {
        function_id: fn.id,
        function_version: Number(version),
        cron,
        time_zone: zone,
        overlap,
        misfire,
      };
      // The text itself: large numbers stay what they are.
      await post("/schedules", { body: `${JSON.stringify(rest).slice(0, -1)},"payload":${text}}` });
      done(true);
    } catch (failure) {
      setError(failure as Error);
      setBusy(false);
    }
  };

  return (
    <form
      className="card card-pad stack settings"
      aria-label="New schedule"
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        if (!busy) void create();
      }}
    >
      {error && <Failure error={error} />}
      <TextField
        label="Cron line"
        hint="Minute, hour, day of month, month, day of week; or @hourly, @daily, @weekly, @monthly."
        placeholder="0 9 * * MON-FRI"
        required
        autoFocus
        className="mono-field"
        value={cron}
        field="cron"
        violations={violations}
        onChange={(event) => setCron(event.target.value)}
      />
      <div className="pair-of-fields">
        <TextField
          label="Time zone"
          list={zones}
          value={zone}
          field="time_zone"
          violations={violations}
          onChange={(event) => setZone(event.target.value)}
        />
        <TextField
          label="Version"
          hint="Empty: the latest, each time."
          inputMode="numeric"
          value={version}
          field="function_version"
          violations={violations}
          onChange={(event) => setVersion(event.target.value)}
        />
      </div>
      <datalist id={zones}>
        {Intl.supportedValuesOf("timeZone").map((each) => (
          <option key={each} value={each} />
        ))}
      </datalist>
      <div className="field">
        <span className="field-label">Payload</span>
        <Editor
          className="editor-boxed"
          language="json"
          label="Payload of the schedule"
          value={payload}
          onChange={setPayload}
        />
      </div>
      <div className="pair-of-fields">
        <Choice
          label="If the one before still runs"
          options={OVERLAPS}
          value={overlap}
          onChange={setOverlap}
        />
        <Choice
          label="Moments that were missed are fired"
          options={MISFIRES}
          value={misfire}
          onChange={setMisfire}
        />
      </div>
      <div className="actions">
        <button type="submit" className="button primary" disabled={busy}>
          {busy ? "Creating …" : "Create schedule"}
        </button>
        <button type="button" className="button ghost" onClick={() => done(false)}>
          Cancel
        </button>
      </div>
    </form>
  );
}

function Choice<K extends string>(props: {
  label: string;
  options: Record<K, string>;
  value: K;
  onChange: (value: K) => void;
}) {
  const id = useId();
  return (
    <div className="field">
      <label htmlFor={id}>{props.label}</label>
      <select
        id={id}
        value={props.value}
        onChange={(event) => props.onChange(event.target.value as K)}
      >
        {(Object.entries(props.options) as [K, string][]).map(([key, title]) => (
          <option key={key} value={key}>
            {title}
          </option>
        ))}
      </select>
    </div>
  );
}
