import { useState } from "react";
import { get, type FnVersion } from "../api/client";
import * as format from "../format";
import { useLive, useNow } from "../live";
import { Editor } from "../parts/editor";
import { Empty, Failure, Loading } from "../parts/notice";
import { BuildState } from "../parts/status";
import type { Of } from "./function";
import { readText } from "./function-code";

export function Versions({ fn }: Of) {
  const { data, error } = useLive(
    `versions/${fn.id}/${fn.version}`,
    (signal) =>
      get("/functions/{function_id}/versions", {
        path: { function_id: fn.id },
        query: { page_size: 1000 },
        signal,
      }),
    0,
  );
  const [chosen, setChosen] = useState<[from: number, to: number]>();
  const now = useNow();
  if (!data) return error ? <Failure error={error} /> : <Loading rows={4} />;
  const { versions } = data;
  const to = chosen?.[1] ?? fn.version;
  const from = chosen?.[0] ?? Math.max(1, to - 1);
  return (
    <div className="split split-narrow">
      <section className="card" aria-label="Versions">
        <ol className="versions">
          {versions.map((version) => (
            <li key={version.version}>
              <button
                type="button"
                aria-pressed={version.version === to}
                onClick={() => setChosen([Math.max(1, version.version - 1), version.version])}
              >
                <strong>v{version.version}</strong>
                <span className="faint small" title={format.moment(version.created_at)}>
                  {format.ago(version.created_at, now)}
                </span>
                <BuildState state={version.state} />
                <span className="faint small mono">{version.code_sha256.slice(0, 10)}</span>
              </button>
            </li>
          ))}
        </ol>
      </section>
      <section className="card card-editor" aria-label="Difference">
        <div className="card-head">
          <h2>v{to}</h2>
          {from !== to && (
            <label className="inline">
              against{" "}
              <select
                aria-label="Compare with version"
                value={from}
                onChange={(event) => setChosen([Number(event.target.value), to])}
              >
                {versions
                  .filter((version) => version.version !== to)
                  .map((version) => (
                    <option key={version.version} value={version.version}>
                      v{version.version}
                    </option>
                  ))}
              </select>
            </label>
          )}
        </div>
        {versions.length < 2 ? (
          <Empty title="One version so far">
            <p>
              Any change of code, handler, runtime, memory, CPUs, timeout or environment makes a new
              one. Old ones never change and stay invocable: pass <code>function_version</code>.
            </p>
          </Empty>
        ) : (
          <Difference key={`${from}-${to}`} id={fn.id} from={from} to={to} runtime={fn.runtime} />
        )}
      </section>
    </div>
  );
}

function settingsOf(version: FnVersion): [string, string][] {
  return [
    ["runtime", version.runtime],
    ["handler", version.handler],
    ["memory", `${version.memory_mb} MiB`],
    ["cpus", String(version.cpus)],
    ["timeout", version.timeout ?? ""],
    ...Object.entries(version.env)
      .sort()
      .map(([name, value]): [string, string] => [`env ${name}`, value]),
  ];
}

function Difference(props: { id: string; from: number; to: number; runtime: string }) {
  const { id, from, to } = props;
  const { data, error } = useLive(
    `difference/${id}/${from}/${to}`,
    (signal) => Promise.all([readText(id, from, signal), readText(id, to, signal)]),
    0,
  );
  if (!data) return error ? <Failure error={error} /> : <Loading rows={4} />;
  const [old, now] = data;
  const before = new Map(settingsOf(old.found));
  const after = new Map(settingsOf(now.found));
  const names = [...new Set([...before.keys(), ...after.keys()])];
  const changes = names.filter((name) => before.get(name) !== after.get(name));
  const sameCode = old.found.code_sha256 === now.found.code_sha256;
  return (
    <>
      {changes.length > 0 && (
        <dl className="changes" aria-label="Changed settings">
          {changes.map((name) => (
            <div key={name}>
              <dt className="mono">{name}</dt>
              <dd>
                <del>{before.get(name) ?? "absent"}</del> → <ins>{after.get(name) ?? "absent"}</ins>
              </dd>
            </div>
          ))}
        </dl>
      )}
      {sameCode && <p className="faint quiet">The code is the same.</p>}
      {!sameCode && old.text !== undefined && now.text !== undefined && (
        <Editor
          className="editor-tall"
          language={now.found.runtime}
          label={`Difference of v${from} and v${to}`}
          readOnly
          original={old.text}
          value={now.text}
        />
      )}
      {!sameCode && (old.text === undefined || now.text === undefined) && (
        <p className="faint quiet">
          Archives differ: {format.bytes(old.found.code_size_bytes)} then,{" "}
          {format.bytes(now.found.code_size_bytes)} now.
        </p>
      )}
    </>
  );
}
