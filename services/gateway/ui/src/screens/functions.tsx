import { useState } from "react";
import { get, type Fn } from "../api/client";
import * as format from "../format";
import { useNow, usePaged } from "../live";
import { Icon } from "../parts/icons";
import { useSettled } from "../parts/lines";
import { Command, Empty, Failure, Loading, quoted } from "../parts/notice";
import { BuildState } from "../parts/status";
import { VirtualTable, type Column } from "../parts/virtual";
import { href, replaceQuery, type Route } from "../router";

const PAGE = 200;

/** Names and descriptions that contain what was typed. */
export function filterOf(typed: string): string {
  const words = typed.trim().split(/\s+/).filter(Boolean);
  return words
    .map((word) => {
      const text = `"${word.replace(/["\\]/g, "\\$&")}"`;
      return `(name : ${text} OR description : ${text})`;
    })
    .join(" AND ");
}

function columns(now: number): Column<Fn>[] {
  return [
    {
      title: "Name",
      className: "col-main",
      cell: (fn) => (
        <>
          <a className="row-link" href={href("functions", fn.name)}>
            {fn.name}
          </a>
          <BuildState state={fn.state} />
          <span className="faint truncate">{fn.description}</span>
        </>
      ),
    },
    {
      title: "Runtime",
      className: "col-tag",
      cell: (fn) => <span className="tag">{fn.runtime}</span>,
    },
    { title: "Version", className: "col-number wide", cell: (fn) => `v${fn.version}` },
    { title: "Memory", className: "col-number wide", cell: (fn) => `${fn.memory_mb} MiB` },
    {
      title: "Changed",
      className: "col-time",
      cell: (fn) => (
        <span title={format.moment(fn.updated_at)}>{format.ago(fn.updated_at, now)}</span>
      ),
    },
  ];
}

export function Functions({ route }: { route: Route }) {
  const [typed, setTyped] = useState(route.query.get("q") ?? "");
  const filter = filterOf(useSettled(typed, 200));
  const now = useNow();
  const list = usePaged<Fn>(
    `functions?${filter}`,
    async (token, signal) => {
      const query = { page_size: PAGE, page_token: token, filter };
      const page = await get("/functions", { query, signal });
      return { items: page.functions, next: page.next_page_token };
    },
    5000,
  );

  return (
    <>
      <header className="head">
        <h1>Functions</h1>
        <a className="button primary" href={href("new")}>
          <Icon name="plus" /> New function
        </a>
      </header>
      <div className="toolbar">
        <label className="search">
          <Icon name="search" />
          <input
            type="search"
            data-filter
            aria-label="Filter functions"
            placeholder="Filter by name or description"
            value={typed}
            onChange={(event) => {
              setTyped(event.target.value);
              replaceQuery({ q: event.target.value });
            }}
          />
          <kbd aria-hidden="true">/</kbd>
        </label>
      </div>
      {list.error && !list.ready && <Failure error={list.error} />}
      {!list.ready && !list.error && <Loading rows={6} />}
      {list.ready && list.items.length > 0 && (
        <VirtualTable
          label="Functions"
          className="functions-table"
          items={list.items}
          columns={columns(now)}
          idOf={(fn) => fn.id}
          more={list.more}
          loading={list.loading}
          onMore={list.loadMore}
        />
      )}
      {list.ready && list.items.length === 0 && (filter ? <NoMatch typed={typed} /> : <None />)}
    </>
  );
}

function NoMatch({ typed }: { typed: string }) {
  return (
    <Empty title="No function matches">
      <p>
        Nothing has “{typed.trim()}” in its name or description. All words must be there, in any
        order.
      </p>
    </Empty>
  );
}

export function None() {
  const code = 'def handler(payload, context):\n    return {"hello": payload["name"]}\n';
  const body = JSON.stringify({ name: "hello", runtime: "python", code });
  const text = `curl ${window.location.origin}/functions \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted(body)}`;
  return (
    <Empty
      title="No functions yet"
      action={
        <a className="button primary" href={href("new")}>
          <Icon name="plus" /> New function
        </a>
      }
    >
      <p>
        A function is a name, a runtime and code. Write the first one here, or from a terminal:
      </p>
      <Command text={text} />
    </Empty>
  );
}
