import { useState, type ReactNode } from "react";
import { ApiError, get, type Invocation, type InvocationStatus } from "../api/client";
import * as format from "../format";
import { useNow, usePaged, type Paged } from "../live";
import { Icon } from "../parts/icons";
import { useSettled } from "../parts/lines";
import { Command, Empty, Failure, Loading, invokeCommand } from "../parts/notice";
import { Status, statusWord } from "../parts/status";
import { VirtualTable, type Column } from "../parts/virtual";
import { href, replaceQuery, type Route } from "../router";

const PAGE = 100;
const STATES: InvocationStatus[] = [
  "PENDING",
  "RUNNING",
  "COMPLETED",
  "FAILED",
  "TIMED_OUT",
  "CANCELLED",
  "DEAD_LETTERED",
];

export function invocationColumns(now: number, withFunction = true): Column<Invocation>[] {
  return [
    {
      title: withFunction ? "Function" : "Invocation",
      className: "col-main",
      cell: (each) => (
        <>
          <a
            className={withFunction ? "row-link" : "row-link mono"}
            href={href("invocations", each.id)}
            title={each.id}
          >
            {withFunction ? each.function_name : format.short(each.id)}
          </a>
          {each.error && <span className="faint truncate">{wrong(each.error)}</span>}
        </>
      ),
    },
    ...(withFunction
      ? [
          {
            title: "Id",
            className: "col-id",
            cell: (each: Invocation) => <code className="faint">{each.id.slice(-8)}</code>,
          },
        ]
      : []),
    { title: "Status", className: "col-status", cell: (each) => <Status status={each.status} /> },
    {
      title: "Duration",
      className: "col-number wide",
      cell: (each) => format.duration(format.ms(each.metrics?.duration)),
    },
    {
      title: "Accepted",
      className: "col-time",
      cell: (each) => (
        <span title={format.moment(each.created_at)}>{format.ago(each.created_at, now)}</span>
      ),
    },
  ];
}

function wrong(error: NonNullable<Invocation["error"]>): string {
  return error.type ? `${error.type}: ${error.message}` : error.message || error.code;
}

/** Whether all words are somewhere in what a row shows. */
export function matches(invocation: Invocation, typed: string): boolean {
  const { id, function_name, status, error, labels, worker_id } = invocation;
  const text = [
    id,
    function_name,
    status,
    statusWord(status),
    error ? `${error.code} ${wrong(error)}` : "",
    ...Object.entries(labels).map(([name, value]) => `${name}=${value}`),
    worker_id,
  ]
    .join(" ")
    .toLowerCase();
  return typed
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}

/** Which records are asked for. */
export interface Asked {
  functionId?: string;
  status?: InvocationStatus;
  filter?: string;
}

async function readPage(asked: Asked, page_token: string, signal: AbortSignal) {
  const { functionId, status, filter } = asked;
  const query = {
    page_size: PAGE,
    page_token,
    ...(functionId && { function_id: functionId }),
    ...(status && { status }),
    ...(filter && { filter }),
  };
  const page = await get("/invocations", { query, signal });
  return { items: page.invocations, next: page.next_page_token };
}

/** Records, newest first, live. */
export const useInvocations = (asked: Asked): Paged<Invocation> =>
  usePaged(
    `invocations?${JSON.stringify(asked)}`,
    (token, signal) => readPage(asked, token, signal),
    2000,
  );

interface ListProps {
  label: string;
  list: Paged<Invocation>;
  none: ReactNode;
  ofOne?: boolean;
  /** Words that a shown row must have. */
  words?: string;
  /** A column before the others. */
  first?: Column<Invocation>;
}

export function InvocationList(props: ListProps) {
  const { label, list, none, ofOne = false, words = "", first } = props;
  const now = useNow();
  const found = words ? list.items.filter((each) => matches(each, words)) : list.items;
  if (!list.ready) return list.error ? <Failure error={list.error} /> : <Loading rows={6} />;
  if (!list.items.length) return none;
  const columns = invocationColumns(now, !ofOne);
  return (
    <>
      {found.length > 0 && (
        <VirtualTable
          label={label}
          className={`invocations-table ${ofOne ? "of-one" : ""} ${first ? "with-check" : ""}`}
          items={found}
          columns={first ? [first, ...columns] : columns}
          idOf={(each) => each.id}
          more={list.more && !words}
          loading={list.loading}
          onMore={list.loadMore}
        />
      )}
      {words && (
        <p className="faint small searched" role="status">
          {format.count(found.length)} of the newest {format.count(list.items.length)} match.{" "}
          {list.more && (
            <button type="button" className="link" disabled={list.loading} onClick={list.loadMore}>
              {list.loading ? "Looking …" : "Look further back"}
            </button>
          )}
        </p>
      )}
    </>
  );
}

/** Whether what was typed is an expression, which the server reads, or words. */
export const isExpression = (typed: string) => /[=<>:()]|\b(AND|OR|NOT)\b/.test(typed);

export function Invocations({ route }: { route: Route }) {
  const [typed, setTyped] = useState(route.query.get("q") ?? "");
  const settled = useSettled(typed.trim(), 200);
  const expression = isExpression(settled) ? settled : "";
  const asked = route.query.get("status") ?? "";
  const status = STATES.find((state) => state === asked);
  const list = useInvocations({
    ...(status && { status }),
    ...(expression && { filter: expression }),
  });
  const refused =
    list.error instanceof ApiError && list.error.reason === "INVALID_FILTER" && settled
      ? list.error.message
      : "";
  const type = (text: string) => {
    setTyped(text);
    replaceQuery({ q: text });
  };
  return (
    <>
      <header className="head">
        <h1>Invocations</h1>
        <span className="live" title="Read again every two seconds while you look">
          <span className="dot" aria-hidden="true" /> Live
        </span>
      </header>
      <div className="toolbar">
        <label className="search search-wide">
          <Icon name="search" />
          <input
            type="search"
            data-filter
            aria-label="Filter invocations"
            aria-invalid={refused ? true : undefined}
            aria-describedby={refused ? "filter-wrong" : undefined}
            spellCheck={false}
            placeholder="Words, or status = FAILED AND labels.team = search"
            value={typed}
            onChange={(event) => type(event.target.value)}
          />
          <kbd aria-hidden="true">/</kbd>
        </label>
        <div className="chips" role="group" aria-label="Status">
          {[undefined, ...STATES].map((state) => (
            <button
              key={state ?? "all"}
              type="button"
              className="chip"
              aria-pressed={state === status}
              onClick={() => replaceQuery({ status: state ?? "" })}
            >
              {state ? statusWord(state) : "All"}
            </button>
          ))}
        </div>
        {refused && (
          <p id="filter-wrong" className="field-wrong toolbar-wrong" role="status">
            {refused}
          </p>
        )}
      </div>
      {refused ? (
        <Language onPick={type} />
      ) : (
        <InvocationList
          label="Invocations"
          list={list}
          words={expression ? "" : settled}
          none={
            expression ? (
              <NoMatch onPick={type} />
            ) : status ? (
              <NoneOf status={status} />
            ) : (
              <None />
            )
          }
        />
      )}
    </>
  );
}

const EXAMPLES = [
  'function_name = "hello" AND status = FAILED',
  "error.code = OUT_OF_MEMORY",
  'labels.team = "search" AND attempt > 1',
  "function_name : resize AND NOT status = COMPLETED",
];

/** What a filter may say, by example. */
function Language({ onPick }: { onPick: (text: string) => void }) {
  return (
    <Empty title="A filter compares fields">
      <p>
        <code>function_name</code>, <code>function_version</code>, <code>status</code>,{" "}
        <code>attempt</code>, <code>error.code</code>, <code>created_at</code> and{" "}
        <code>labels.KEY</code>, joined by <code>AND</code>, <code>OR</code> and <code>NOT</code>.
        Words alone are looked for in what is shown.
      </p>
      <ul className="examples">
        {EXAMPLES.map((each) => (
          <li key={each}>
            <button type="button" className="link mono small" onClick={() => onPick(each)}>
              {each}
            </button>
          </li>
        ))}
      </ul>
    </Empty>
  );
}

function NoMatch({ onPick }: { onPick: (text: string) => void }) {
  return (
    <>
      <Empty title="No invocation matches">
        <p>None that is kept; new ones that do appear here by themselves.</p>
      </Empty>
      <Language onPick={onPick} />
    </>
  );
}

function NoneOf({ status }: { status: InvocationStatus }) {
  return (
    <Empty title={`None is ${statusWord(status).toLowerCase()}`}>
      <p>Nothing kept is in this state now. New ones appear here by themselves.</p>
    </Empty>
  );
}

function None() {
  return (
    <Empty title="Nothing has been invoked yet">
      <p>Every call of a function leaves a record here. Make one:</p>
      <Command text={invokeCommand("hello")} />
    </Empty>
  );
}
