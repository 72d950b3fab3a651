// The name of an invocation, and what can be done with it.
import { useState } from "react";
import { post, type Invocation } from "../api/client";
import { Dialog } from "../parts/dialog";
import { TextField } from "../parts/fields";
import { Icon } from "../parts/icons";
import { Copy, Failure } from "../parts/notice";
import { Status, hasEnded } from "../parts/status";
import { go, href } from "../router";

const TAKEN_UP_AGAIN = new Set(["FAILED", "TIMED_OUT", "DEAD_LETTERED"]);

export function Head({ invocation }: { invocation: Invocation }) {
  const [error, setError] = useState<Error>();
  const [busy, setBusy] = useState(false);
  const [replaying, setReplaying] = useState(false);

  const act = async (what: () => Promise<void>) => {
    setBusy(true);
    setError(undefined);
    try {
      await what();
    } catch (failure) {
      setError(failure as Error);
    } finally {
      setBusy(false);
    }
  };
  const cancel = async () => {
    const path = { invocation_id: invocation.id };
    await post("/invocations/{invocation_id}:cancel", { path, body: {} }); // the watch shows it
  };
  const redrive = async () => {
    const body = { invocation_ids: [invocation.id] };
    const [found] = (await post("/dead-letters:redrive", { body })).redrives;
    if (!found?.invocation_id) throw new Error(found?.refusal ?? "It was not taken up again.");
    go(href("invocations", found.invocation_id));
  };

  return (
    <>
      <header className="head">
        <div className="head-main">
          <p className="crumbs">
            <a href={href("invocations")}>Invocations</a>
          </p>
          <h1 className="title-with-status">
            <a className="quiet-link" href={href("functions", invocation.function_name)}>
              {invocation.function_name}
            </a>
            <Status status={invocation.status} />
          </h1>
          <p className="faint small id-line">
            <code>{invocation.id}</code> <Copy text={invocation.id} label="Copy id" />
          </p>
        </div>
        <div className="actions">
          {!hasEnded(invocation.status) && (
            <button
              type="button"
              className="button danger"
              disabled={busy}
              onClick={() => void act(cancel)}
            >
              <Icon name="close" /> Cancel
            </button>
          )}
          {TAKEN_UP_AGAIN.has(invocation.status) && (
            <button
              type="button"
              className="button"
              title="Take it up again, once, with a new invocation that is linked to it"
              disabled={busy}
              onClick={() => void act(redrive)}
            >
              <Icon name="repeat" /> Redrive
            </button>
          )}
          {hasEnded(invocation.status) && (
            <button type="button" className="button" onClick={() => setReplaying(true)}>
              <Icon name="repeat" /> Replay …
            </button>
          )}
        </div>
      </header>
      {error && <Failure error={error} />}
      {replaying && <Replay invocation={invocation} onClose={() => setReplaying(false)} />}
    </>
  );
}

type Version = "same" | "latest" | "other";

function Replay({ invocation, onClose }: { invocation: Invocation; onClose: () => void }) {
  const [version, setVersion] = useState<Version>("same");
  const [other, setOther] = useState("");
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<Error>();

  const replay = async () => {
    setBusy(true);
    setError(undefined);
    const function_version = { same: undefined, latest: 0, other: Number(other) }[version];
    try {
      const made = await post("/invocations/{invocation_id}:replay", {
        path: { invocation_id: invocation.id },
        body: function_version === undefined ? {} : { function_version },
      });
      if (made.invocation) go(href("invocations", made.invocation.id));
    } catch (failure) {
      setError(failure as Error);
      setBusy(false);
    }
  };
  const choices: [Version, string][] = [
    ["same", `The version that it ran on, v${invocation.function_version}`],
    ["latest", "The latest version"],
    ["other", "Another version"],
  ];
  return (
    <Dialog title={`Replay ${invocation.function_name}`} onClose={onClose}>
      <p>
        The function is invoked again with the same payload, and how the two end is compared. What
        it does outside of itself, it does again.
      </p>
      <form
        className="stack"
        noValidate
        onSubmit={(event) => {
          event.preventDefault();
          if (!busy) void replay();
        }}
      >
        <div className="choices" role="radiogroup" aria-label="Version">
          {choices.map(([id, title]) => (
            <label key={id} className="check">
              <input
                type="radio"
                name="version"
                checked={version === id}
                onChange={() => setVersion(id)}
              />
              <span>{title}</span>
            </label>
          ))}
        </div>
        {version === "other" && (
          <TextField
            label="Number of the version"
            inputMode="numeric"
            value={other}
            onChange={(event) => setOther(event.target.value)}
          />
        )}
        {error && <Failure error={error} />}
        <div className="actions end">
          <button type="button" className="button" onClick={onClose}>
            Leave it
          </button>
          <button
            type="submit"
            className="button primary"
            disabled={busy || (version === "other" && !/^[1-9]\d{0,8}$/.test(other.trim()))}
          >
            {busy ? "Replaying …" : "Replay"}
          </button>
        </div>
      </form>
    </Dialog>
  );
}
