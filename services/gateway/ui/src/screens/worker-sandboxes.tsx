import { useState } from "react";
import { get, type Worker } from "../api/client";
import * as format from "../format";
import { useLive } from "../live";
import { Meter } from "../parts/charts";
import { href } from "../router";

const MOST_SHOWN = 8; // before one asks for all
const MIB = 1024 * 1024;

const mib = (value: number) => format.bytes(value * MIB);

/** What a worker keeps for further calls, and how much of what it may keep. */
export function Sandboxes({ worker }: { worker: Worker }) {
  const { budget, host, sandboxes } = worker;
  return (
    <>
      <h3>Sandboxes</h3>
      {budget && (
        <>
          <p className="worker-load">
            <Meter label={`Sandboxes of ${host}`} value={budget.held} max={budget.sandboxes} />
            <span className="tabular">
              {format.count(budget.held)} of {format.count(budget.sandboxes)}
            </span>
          </p>
          <p className="worker-load">
            <Meter
              label={`Memory of the sandboxes of ${host}`}
              value={budget.held_memory_mb}
              max={budget.memory_mb}
            />
            <span className="tabular">
              {mib(budget.held_memory_mb)} of {mib(budget.memory_mb)}{" "}
              <span className="faint">memory</span>
            </span>
          </p>
        </>
      )}
      {sandboxes.length ? <Table sandboxes={sandboxes} /> : <None worker={worker} />}
    </>
  );
}

function Table({ sandboxes }: { sandboxes: Worker["sandboxes"] }) {
  const [all, setAll] = useState(false);
  return (
    <>
      <div className="scroll" tabIndex={0} role="group" aria-label="Sandboxes">
        <table className="plain boxes">
          <thead>
            <tr>
              <th scope="col">Function</th>
              <th scope="col">Ready</th>
              <th scope="col">In use</th>
              <th scope="col">Starting</th>
              <th scope="col">Memory</th>
            </tr>
          </thead>
          <tbody>
            {sandboxes.slice(0, all ? undefined : MOST_SHOWN).map((each) => (
              <tr key={`${each.function_id} ${each.function_version} ${each.runtime}`}>
                <th scope="row">
                  {each.function_id ? (
                    <FunctionLink id={each.function_id} />
                  ) : (
                    <span title="For any function of the runtime">Prewarmed</span>
                  )}
                  <span className="faint small">
                    {each.function_id && `v${each.function_version} · `}
                    {each.runtime}
                  </span>
                </th>
                <td>{each.ready}</td>
                <td>{each.in_use}</td>
                <td>{each.starting}</td>
                <td>{mib(each.memory_mb)}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      {sandboxes.length > MOST_SHOWN && (
        <button type="button" className="button" onClick={() => setAll(!all)}>
          {all ? "Show fewer" : `Show all ${format.count(sandboxes.length)}`}
        </button>
      )}
    </>
  );
}

/** By the function's name; by its id until that is known, and when it is deleted. */
function FunctionLink({ id }: { id: string }) {
  const { data } = useLive(
    `function/${id}`,
    (signal) => get("/functions/{function_id}", { path: { function_id: id }, signal }),
    60_000,
  );
  const name = data?.name ?? id;
  return (
    <a className="truncate" title={name} href={href("functions", name)}>
      {data ? name : format.short(id)}
    </a>
  );
}

/** Why there are none. */
function None({ worker }: { worker: Worker }) {
  if (!worker.budget)
    return (
      <p className="faint small">
        None: in the process runtime each call has a process of its own. Under Docker a sandbox is
        kept after a call and used for the next.
      </p>
    );
  if (!worker.keeps_warm)
    return (
      <p className="faint small">
        None: this worker gives each call a fresh one, unless the function’s <code>sandbox</code>{" "}
        is warm.
      </p>
    );
  return (
    <p className="faint small">
      None now. A call starts one, which is kept for the next; with a <code>min_warm</code> a
      function has some before anybody calls.
    </p>
  );
}
