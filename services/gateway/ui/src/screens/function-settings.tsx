import { useState } from "react";
import { ApiError, call } from "../api/client";
import { ms } from "../format";
import { PairsField, TextField, fromPairs, toPairs } from "../parts/fields";
import { Failure } from "../parts/notice";
import type { Of } from "./function";

const valuesOf = (fn: Of["fn"]) => ({
  description: fn.description,
  handler: fn.handler,
  memory_mb: String(fn.memory_mb),
  cpus: String(fn.cpus),
  timeout: String((ms(fn.timeout) ?? 0) / 1000),
  env: toPairs(fn.env),
  labels: toPairs(fn.labels),
});
type Values = ReturnType<typeof valuesOf>;

/** What the form holds and the function does not, as an update. */
export function changesOf(fn: Of["fn"], values: Values) {
  const old = valuesOf(fn);
  const differs = (name: keyof Values) => JSON.stringify(old[name]) !== JSON.stringify(values[name]);
  const names = (Object.keys(old) as (keyof Values)[]).filter(differs);
  const all = {
    description: values.description,
    handler: values.handler,
    memory_mb: Number(values.memory_mb),
    cpus: Number(values.cpus),
    timeout: `${Number(values.timeout)}s`,
    env: fromPairs(values.env),
    labels: fromPairs(values.labels),
  };
  return { names, changed: Object.fromEntries(names.map((name) => [name, all[name]])) };
}

export function Settings({ fn, changed }: Of) {
  const [edited, setEdited] = useState<{ values: Values; etag: string }>();
  const [error, setError] = useState<Error>();
  const [busy, setBusy] = useState(false);
  const [saved, setSaved] = useState("");
  const violations = error instanceof ApiError ? error.fields : [];
  const values = edited?.values ?? valuesOf(fn);
  const { names, changed: body } = changesOf(fn, values);
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
        body: { ...body, update_mask: names.join(","), etag: edited?.etag ?? fn.etag },
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

  const text = (name: "description" | "handler" | "memory_mb" | "cpus" | "timeout") => ({
    value: values[name],
    field: name,
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
