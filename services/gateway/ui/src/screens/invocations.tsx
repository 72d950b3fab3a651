import { useState } from "react";
import { get, type Invocation, type InvocationStatus } from "../api/client";
import * as format from "../format";
import { useNow, usePaged } from "../live";
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

interface ListProps {
  functionId?: string;
  status?: InvocationStatus;
  typed?: string;
  label: string;
  none: React.ReactNode;
}

/** Records, newest first, live. */
export function InvocationList({ functionId, status, typed = "", label, none }: ListProps) {
  const now = useNow();
  const list = usePaged<Invocation>(
    `invocations?${functionId ?? ""}&${status ?? ""}`,
    async (token, signal) => {
      const page = await get("/invocations", {
        query: {
          page_size: PAGE,
          page_token: token,
          ...(functionId && { function_id: functionId }),
          ...(status && { status }),
        },
        signal,
      });
      return { items: page.invocations, next: page.next_page_token };
    },
    2000,
  );
  const found = typed ? list.items.filter((each) => matches(each, typed)) : list.items;
  if (!list.ready) return list.error ? <Failure error={list.error} /> : <Loading rows={6} />;
  if (!list.items.length) return none;
  return (
    <>
      {found.length > 0 && (
        <VirtualTable
          label={label}
          className={functionId ? "invocations-table of-one" : "invocations-table"}
          items={found}
          columns={invocationColumns(now, !functionId)}
          idOf={(each) => each.id}
          more={list.more && !typed}
          loading={list.loading}
          onMore={list.loadMore}
        />
      )}
      {typed && (
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

export function Invocations({ route }: { route: Route }) {
  const [typed, setTyped] = useState(route.query.get("q") ?? "");
  const settled = useSettled(typed.trim(), 150);
  const asked = route.query.get("status") ?? "";
  const status = STATES.find((state) => state === asked);
  return (
    <>
      <header className="head">
        <h1>Invocations</h1>
        <span className="live" title="Read again every two seconds while you look">
          <span className="dot" aria-hidden="true" /> Live
        </span>
      </header>
      <div className="toolbar">
        <label className="search">
          <Icon name="search" />
          <input
            type="search"
            data-filter
            aria-label="Filter invocations"
            placeholder="Filter by function, error, label or id"
            value={typed}
            onChange={(event) => {
              setTyped(event.target.value);
              replaceQuery({ q: event.target.value });
            }}
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
      </div>
      <InvocationList
        label="Invocations"
        typed={settled}
        {...(status && { status })}
        none={status ? <NoneOf status={status} /> : <None />}
      />
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
