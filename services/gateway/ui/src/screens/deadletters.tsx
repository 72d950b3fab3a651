import { useState } from "react";
import { ApiError, get, type Invocation } from "../api/client";
import * as format from "../format";
import { useLive, usePaged } from "../live";
import { Icon } from "../parts/icons";
import { useSettled } from "../parts/lines";
import { Empty } from "../parts/notice";
import type { Column } from "../parts/virtual";
import { InvocationList } from "./invocations";
import { Redrive, type Wanted } from "./redrive";

const PAGE = 100;
const CODES = {
  WORKER_LOST: "Worker lost",
  PLATFORM_ERROR: "Platform error",
  EXPIRED: "Expired",
} as const;
type Code = keyof typeof CODES;

export function DeadLetters() {
  const [name, setName] = useState("");
  const [code, setCode] = useState<Code>();
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [asking, setAsking] = useState<Wanted>();
  const function_id = useSettled(name.trim(), 250);
  const filter = { ...(function_id && { function_id }), ...(code && { code }) };
  const list = usePaged<Invocation>(
    `dead-letters?${JSON.stringify(filter)}`,
    async (page_token, signal) => {
      const query = { ...filter, page_size: PAGE, page_token };
      const page = await get("/dead-letters", { query, signal });
      return { items: page.invocations, next: page.next_page_token };
    },
    3000,
  );
  const unknown =
    function_id && list.error instanceof ApiError && list.error.status < 500 && list.error.status > 0
      ? list.error.message
      : "";
  const ids = list.items.map((each) => each.id).filter((id) => chosen.has(id));
  const isFiltered = Boolean(function_id || code);

  return (
    <>
      <header className="head">
        <div className="head-main">
          <h1>Dead letters</h1>
          <p className="muted">What the platform gave up on, through no fault of the function.</p>
        </div>
        <div className="actions">
          {ids.length > 0 && (
            <button
              type="button"
              className="button primary"
              onClick={() => setAsking({ invocation_ids: ids })}
            >
              <Icon name="repeat" /> Redrive {format.count(ids.length)} selected …
            </button>
          )}
          <button
            type="button"
            className="button"
            disabled={!list.items.length}
            onClick={() => setAsking(filter)}
          >
            <Icon name="repeat" /> Redrive all{isFiltered && " that match"} …
          </button>
        </div>
      </header>
      <div className="toolbar">
        <label className="search">
          <Icon name="search" />
          <input
            type="search"
            data-filter
            aria-label="Of the function"
            aria-invalid={unknown ? true : undefined}
            aria-describedby={unknown ? "function-wrong" : undefined}
            spellCheck={false}
            placeholder="Name of a function"
            value={name}
            onChange={(event) => setName(event.target.value)}
          />
          <kbd aria-hidden="true">/</kbd>
        </label>
        <div className="chips" role="group" aria-label="Reason">
          {[undefined, ...(Object.keys(CODES) as Code[])].map((each) => (
            <button
              key={each ?? "any"}
              type="button"
              className="chip"
              aria-pressed={each === code}
              onClick={() => setCode(each)}
            >
              {each ? CODES[each] : "Any reason"}
            </button>
          ))}
        </div>
        {unknown && (
          <p id="function-wrong" className="field-wrong toolbar-wrong" role="status">
            {unknown}
          </p>
        )}
      </div>
      {!unknown && (
        <InvocationList
          label="Dead letters"
          list={list}
          first={selecting(list.items, chosen, setChosen)}
          none={isFiltered ? <NoMatch /> : <None />}
        />
      )}
      <Strays />
      {asking && (
        <Redrive
          wanted={asking}
          onClose={() => {
            setAsking(undefined);
            setChosen(new Set());
          }}
        />
      )}
    </>
  );
}

/** The column with which rows are selected. */
function selecting(
  items: Invocation[],
  chosen: ReadonlySet<string>,
  choose: (ids: ReadonlySet<string>) => void,
): Column<Invocation> {
  const all = items.length > 0 && items.every((each) => chosen.has(each.id));
  const turn = (id: string) => {
    const next = new Set(chosen);
    if (!next.delete(id)) next.add(id);
    choose(next);
  };
  return {
    title: "Select",
    className: "col-check",
    header: (
      <input
        type="checkbox"
        aria-label="Select all that are loaded"
        checked={all}
        onChange={() => choose(new Set(all ? [] : items.map((each) => each.id)))}
      />
    ),
    cell: (each) => (
      <input
        type="checkbox"
        aria-label={`Select ${each.id}`}
        checked={chosen.has(each.id)}
        onChange={() => turn(each.id)}
      />
    ),
  };
}

function None() {
  return (
    <Empty title="Nothing was given up on">
      <p>
        An invocation comes here when its workers were lost too often, or when it could not be
        started in time. A function that merely fails is not here: see Invocations.
      </p>
    </Empty>
  );
}

function NoMatch() {
  return (
    <Empty title="No dead letter matches">
      <p>Of this function and for this reason nothing was given up on.</p>
    </Empty>
  );
}

/** Messages of the queue that were nobody's. */
function Strays() {
  const { data } = useLive(
    "dead-messages",
    (signal) => get("/dead-letters/messages", { query: { page_size: 100 }, signal }),
    10_000,
  );
  if (!data?.messages.length) return null;
  return (
    <section className="card after" aria-labelledby="strays">
      <div className="card-head">
        <h2 id="strays">Stray messages</h2>
        <span className="faint small">
          {format.count(data.total)} in the queue belonged to no invocation
        </span>
      </div>
      <ul className="strays">
        {data.messages.map((each, index) => (
          <li key={index}>
            <p>
              {each.reason} <span className="faint small">{format.moment(each.time)}</span>
            </p>
            <pre tabIndex={0} aria-label={`Message ${index + 1}`}>
              {each.message}
            </pre>
          </li>
        ))}
      </ul>
    </section>
  );
}
