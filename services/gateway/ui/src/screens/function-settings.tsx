import { useState } from "react";
import { ApiError, call, type Fn } from "../api/client";
import { ms } from "../format";
import { PairsField, TextField, fromPairs, toPairs } from "../parts/fields";
import { Failure } from "../parts/notice";
import type { Of } from "./function";

const seconds = (duration: string | undefined) =>
  duration === undefined ? "" : String((ms(duration) ?? 0) / 1000);
const toDuration = (text: string) => `${Number(text)}s`;

const valuesOf = (fn: Fn) => ({
  description: fn.description,
  handler: fn.handler,
  memory_mb: String(fn.memory_mb),
  cpus: String(fn.cpus),
  timeout: seconds(fn.timeout),
  env: toPairs(fn.env),
  labels: toPairs(fn.labels),
  max_concurrency: String(fn.max_concurrency || ""),
  min_warm: String(fn.min_warm || ""),
  max_age: seconds(fn.max_age),
  attempts: String(fn.retry_policy?.max_attempts ?? 1),
  backoff: seconds(fn.retry_policy?.initial_backoff),
  most_backoff: seconds(fn.retry_policy?.max_backoff),
  retry_lost_worker: fn.retry_policy?.retry_lost_worker ?? true,
});
type Values = ReturnType<typeof valuesOf>;
type Text = { [K in keyof Values]: Values[K] extends string ? K : never }[keyof Values];

const POLICY: (keyof Values)[] = ["attempts", "backoff", "most_backoff", "retry_lost_worker"];

/** What the form holds and the function does not, as fields of an update. */
export function changesOf(fn: Fn, values: Values): Record<string, unknown> {
  const old = valuesOf(fn);
  const differs = (name: keyof Values) =>
    JSON.stringify(old[name]) !== JSON.stringify(values[name]);
  const { backoff, most_backoff: most } = values;
  const updates = {
    description: values.description,
    handler: values.handler,
    memory_mb: Number(values.memory_mb),
    cpus: Number(values.cpus),
    timeout: toDuration(values.timeout),
    env: fromPairs(values.env),
    labels: fromPairs(values.labels),
    max_concurrency: Number(values.max_concurrency),
    min_warm: Number(values.min_warm),
    ...(values.max_age && { max_age: toDuration(values.max_age) }),
  };
  const policy = {
    max_attempts: Number(values.attempts),
    ...(backoff && { initial_backoff: toDuration(backoff) }),
    ...(most && { max_backoff: toDuration(most) }),
    retry_on: fn.retry_policy?.retry_on ?? [],
    retry_lost_worker: values.retry_lost_worker,
  };
  const names = (Object.keys(old) as (keyof Values)[]).filter(differs);
  const plain = names.filter((name) => !POLICY.includes(name));
  return {
    ...Object.fromEntries(plain.map((name) => [name, (updates as Record<string, unknown>)[name]])),
    ...(names.length > plain.length && { retry_policy: policy }),
  };
}

export function Settings({ fn, changed }: Of) {
  const [edited, setEdited] = useState<{ values: Values; etag: string }>();
  const [error, setError] = useState<Error>();
  const [busy, setBusy] = useState(false);
  const [saved, setSaved] = useState("");
  const violations = error instanceof ApiError ? error.fields : [];
  const values = edited?.values ?? valuesOf(fn);
  const changes = changesOf(fn, values);
  const names = Object.keys(changes);
  const set = (change: Partial<Values>) => {
    setSaved("");
    setEdited((old) => ({ values: { ...values, ...change }, etag: old?.etag ?? fn.etag }));
  };

  const save = async () => {
    setBusy(true);
    setError(undefined);
    try {
      const made = await call("patch", "/functions/{function_id}", {
        path: { function_id: fn.id },
        body: { ...changes, update_mask: names.join(","), etag: edited?.etag ?? fn.etag },
      });
      setSaved(made.version > fn.version ? `Saved as v${made.version}.` : "Saved.");
      setEdited(undefined);
      changed();
    } catch (failure) {
      setError(failure as Error);
    } finally {
      setBusy(false);
    }
  };

  const text = (name: Text, field: string = name) => ({
    value: values[name],
    field,
    violations,
    onChange: (event: { target: { value: string } }) => set({ [name]: event.target.value }),
  });
  return (
    <form
      className="card card-pad stack settings"
      noValidate
      onSubmit={(event) => {
        event.preventDefault();
        if (names.length && !busy) void save();
      }}
    >
      {error && <Failure error={error} />}
      <TextField label="Description" {...text("description")} />
      <TextField
        label="Handler"
        hint="module.callable is called; a module alone is run as a program."
        {...text("handler")}
      />
      <div className="pair-of-fields">
        <TextField label="Memory, MiB" inputMode="numeric" {...text("memory_mb")} />
        <TextField label="CPUs, cores" inputMode="decimal" {...text("cpus")} />
        <TextField label="Timeout, seconds" inputMode="decimal" {...text("timeout")} />
      </div>
      <PairsField
        label="Environment"
        noun="variable"
        field="env"
        violations={violations}
        pairs={values.env}
        onChange={(env) => set({ env })}
      />
      <PairsField
        label="Labels"
        noun="label"
        field="labels"
        violations={violations}
        hint="Free, for filters; they make no new version."
        pairs={values.labels}
        onChange={(labels) => set({ labels })}
      />
      <fieldset className="stack">
        <legend>Delivery</legend>
        <p className="field-hint">
          For what is accepted from now on; no new version. A start that is lost with its worker is
          made up for, apart from these.
        </p>
        <div className="pair-of-fields">
          <TextField
            label="Starts in all"
            hint="1: a failure is final."
            inputMode="numeric"
            {...text("attempts", "retry_policy.max_attempts")}
          />
          <TextField
            label="First wait, seconds"
            hint="Doubles each time."
            placeholder="1"
            inputMode="decimal"
            {...text("backoff", "retry_policy.initial_backoff")}
          />
          <TextField
            label="Longest wait, seconds"
            placeholder="300"
            inputMode="decimal"
            {...text("most_backoff", "retry_policy.max_backoff")}
          />
        </div>
        <label className="check">
          <input
            type="checkbox"
            checked={values.retry_lost_worker}
            onChange={(event) => set({ retry_lost_worker: event.target.checked })}
          />
          <span>
            Start again when a worker is lost. Clear this for functions that must not run twice.
          </span>
        </label>
        <div className="pair-of-fields">
          <TextField
            label="At once, at most"
            hint="Empty: any number."
            placeholder="any number"
            inputMode="numeric"
            {...text("max_concurrency")}
          />
          <TextField
            label="Kept ready"
            hint="Sandboxes that wait for calls. Empty: none."
            placeholder="none"
            inputMode="numeric"
            {...text("min_warm")}
          />
          <TextField
            label="Start within, seconds"
            hint="Later, it is given up on. Empty: 6 hours."
            placeholder="21600"
            inputMode="decimal"
            {...text("max_age")}
          />
        </div>
      </fieldset>
      <div className="actions">
        <button type="submit" className="button primary" disabled={!names.length || busy}>
          {busy ? "Saving …" : "Save"}
        </button>
        {names.length > 0 && (
          <button type="button" className="button ghost" onClick={() => setEdited(undefined)}>
            Discard
          </button>
        )}
        <span role="status" className="muted small">
          {saved}
        </span>
      </div>
    </form>
  );
}
