// Taking dead letters up again, page by page, with what became of each.
import { useEffect, useRef, useState } from "react";
import { post, type BodyOf, type InvocationStatus } from "../api/client";
import type { operations } from "../api/schema";
import * as format from "../format";
import { Dialog } from "../parts/dialog";
import { Failure } from "../parts/notice";
import { href } from "../router";

const PAGE = 100;
const MOST_LINKS = 20;

type Body = BodyOf<operations["RedriveInvocations"]>;
/** Either `invocation_ids`, or a filter. */
export type Wanted = Pick<Body, "invocation_ids" | "function_id" | "code"> & {
  status?: InvocationStatus;
};

interface Done {
  made: string[];
  refused: string[];
}

/** The calls that it takes, one after the other: the answer of each as it comes. */
async function* redrives(wanted: Wanted, latest_version: boolean) {
  const { invocation_ids: ids, ...filter } = wanted;
  if (ids) {
    for (let at = 0; at < ids.length; at += PAGE) {
      const body = { invocation_ids: ids.slice(at, at + PAGE), latest_version };
      yield (await post("/dead-letters:redrive", { body })).redrives;
    }
    return;
  }
  let page_token = "";
  do {
    const body = { ...filter, page_size: PAGE, page_token, latest_version };
    const answer = await post("/dead-letters:redrive", { body });
    yield answer.redrives;
    page_token = answer.next_page_token;
  } while (page_token);
}

/** Closing it stops after the page that is under way. */
export function Redrive({ wanted, onClose }: { wanted: Wanted; onClose: () => void }) {
  const [latest, setLatest] = useState(false);
  const [state, setState] = useState<"asking" | "busy" | "over">("asking");
  const [done, setDone] = useState<Done>({ made: [], refused: [] });
  const [error, setError] = useState<Error>();
  const closed = useRef(false);
  useEffect(() => {
    closed.current = false;
    return () => {
      closed.current = true;
    };
  }, []);
  const count = wanted.invocation_ids?.length;

  const redrive = async () => {
    setState("busy");
    setError(undefined);
    const sum: Done = { made: [], refused: [] };
    try {
      for await (const page of redrives(wanted, latest)) {
        sum.made.push(...page.map((each) => each.invocation_id).filter(Boolean));
        sum.refused.push(...page.map((each) => each.refusal).filter(Boolean));
        setDone({ ...sum });
        if (closed.current) return;
      }
      setState("over");
    } catch (failure) {
      setError(failure as Error);
      setState("asking"); // again is safe: each is taken up once
    }
  };

  const what = count ? `${format.count(count)} selected` : titleOf(wanted);
  return (
    <Dialog title={`Redrive ${what}?`} onClose={onClose}>
      <p>
        Each is taken up again, once, by a new invocation that is linked to it. The records here
        stay as they are.
      </p>
      <label className="check">
        <input
          type="checkbox"
          checked={latest}
          disabled={state !== "asking"}
          onChange={(event) => setLatest(event.target.checked)}
        />
        <span>Run the latest version of each function instead of the one that was run before.</span>
      </label>
      {state === "busy" && (
        <progress
          className="after"
          aria-label="Progress"
          {...(count && { max: count, value: done.made.length + done.refused.length })}
        />
      )}
      <div role="status">
        {state !== "asking" && <p className="after">{toldOf(done, state === "over")}</p>}
      </div>
      {state === "over" && <Links ids={done.made} />}
      {error && <Failure error={error} />}
      <form method="dialog" className="actions end">
        <button type="submit" className="button">
          {state === "over" ? "Close" : state === "busy" ? "Stop" : "Leave them"}
        </button>
        {state !== "over" && (
          <button
            type="button"
            className="button primary"
            disabled={state === "busy"}
            onClick={() => void redrive()}
          >
            {state === "busy" ? "Redriving …" : "Redrive"}
          </button>
        )}
      </form>
    </Dialog>
  );
}

function titleOf({ function_id, code }: Wanted): string {
  const of = function_id ? ` of ${function_id}` : "";
  return code ? `all${of} with ${code}` : of ? `all${of}` : "all dead letters";
}

function toldOf({ made, refused }: Done, over: boolean): string {
  if (over && !made.length && !refused.length)
    return "There was nothing that had not been taken up before.";
  const told = `${format.count(made.length)} taken up again.`;
  if (!refused.length) return told;
  return `${told} ${format.count(refused.length)} not: ${[...new Set(refused)].join("; ")}`;
}

function Links({ ids }: { ids: string[] }) {
  if (!ids.length) return null;
  return (
    <ul className="tags" aria-label="New invocations">
      {ids.slice(0, MOST_LINKS).map((id) => (
        <li key={id}>
          <a className="small" href={href("invocations", id)}>
            <code>{format.short(id)}</code>
          </a>
        </li>
      ))}
      {ids.length > MOST_LINKS && (
        <li className="faint small">and {format.count(ids.length - MOST_LINKS)} more</li>
      )}
    </ul>
  );
}
