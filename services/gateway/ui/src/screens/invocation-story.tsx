// What happened to an invocation, and how its end compares with that of another.
import { get, type Invocation } from "../api/client";
import * as format from "../format";
import { useLive } from "../live";
import { Failure, Loading } from "../parts/notice";
import { hasEnded, statusWord } from "../parts/status";
import { href } from "../router";

type Explanation = Awaited<ReturnType<typeof readStory>>;

const readStory = (id: string, signal: AbortSignal) =>
  get("/invocations/{invocation_id}:explain", { path: { invocation_id: id }, signal });

/** Every transition with its cause, as the platform tells it. */
export function Story({ invocation }: { invocation: Invocation }) {
  const ended = hasEnded(invocation.status);
  const { data, error } = useLive(
    `explain/${invocation.id}/${ended}`,
    (signal) => readStory(invocation.id, signal),
    ended ? 0 : 2000,
  );
  return (
    <section className="card" aria-labelledby="story">
      <div className="card-head">
        <h2 id="story">What happened</h2>
      </div>
      {!data && (error ? <Failure error={error} /> : <Loading rows={3} />)}
      {data && (
        <>
          <p className="story-summary">{data.summary}</p>
          <ol className="steps">
            {data.steps.map((step, index) => (
              <li key={index}>
                <span className="faint small tabular" title={format.moment(step.time)}>
                  {index === 0
                    ? format.clock(step.time)
                    : `+ ${format.duration(format.ms(step.after))}`}
                </span>
                <div>
                  <p>{step.what}</p>
                  {step.why && <p className="faint small">{step.why}</p>}
                </div>
              </li>
            ))}
          </ol>
          {data.attempts.length > 1 && <Attempts attempts={data.attempts} />}
        </>
      )}
    </section>
  );
}

function Attempts({ attempts }: { attempts: Explanation["attempts"] }) {
  return (
    <div className="scroll" tabIndex={0} role="group" aria-label="Attempts">
      <table className="plain">
        <thead>
          <tr>
            <th scope="col">Start</th>
            <th scope="col">Ended</th>
            <th scope="col">Waited</th>
            <th scope="col">Start-up</th>
            <th scope="col">Run</th>
            <th scope="col">Worker</th>
          </tr>
        </thead>
        <tbody>
          {attempts.map((each) => (
            <tr key={each.attempt}>
              <th scope="row">#{each.attempt}</th>
              <td title={each.error?.message}>{statusWord(each.outcome)}</td>
              <td className="tabular">{format.duration(format.ms(each.metrics?.queued))}</td>
              <td className="tabular">{format.duration(format.ms(each.metrics?.startup))}</td>
              <td className="tabular">{format.duration(format.ms(each.metrics?.run))}</td>
              <td>
                <code>{format.short(each.worker_id)}</code>
              </td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

const MOST_CHARACTERS = 300; // of one value

function short(value: unknown): string {
  if (value === undefined) return "absent";
  const text = JSON.stringify(value);
  return text.length > MOST_CHARACTERS ? `${text.slice(0, MOST_CHARACTERS)} …` : text;
}

/** Of what replays or redrives another: how the two have ended. */
export function Compared({ invocation }: { invocation: Invocation }) {
  const other = invocation.replay_of || invocation.redrive_of;
  if (!other) return null;
  return (
    <section className="card" aria-labelledby="compared">
      <div className="card-head">
        <h2 id="compared">Compared with</h2>
        <a className="small" href={href("invocations", other)}>
          <code>{format.short(other)}</code>
        </a>
        <span className="faint small">
          {invocation.replay_of ? "which this replays" : "which this takes up again"}
        </span>
      </div>
      {hasEnded(invocation.status) ? (
        <Differences id={invocation.id} />
      ) : (
        <p className="faint quiet">Once this has ended, how the two ended is compared here.</p>
      )}
    </section>
  );
}

function Differences({ id }: { id: string }) {
  const { data, error } = useLive(
    `compare/${id}`,
    (signal) =>
      get("/invocations/{invocation_id}:compare", { path: { invocation_id: id }, signal }),
    0,
  );
  if (!data) return error ? <Failure error={error} /> : <Loading rows={2} />;
  if (data.equal)
    return <p className="quiet">Both ended the same way: status, error and result are equal.</p>;
  return (
    <>
      <dl className="changes" aria-label="Differences">
        {data.differences.map(({ path, before, after }) => (
          <div key={path}>
            <dt className="mono">{path}</dt>
            <dd className="mono">
              <del>{short(before)}</del> → <ins>{short(after)}</ins>
            </dd>
          </div>
        ))}
      </dl>
      {data.truncated && <p className="faint small quiet">There are more differences.</p>}
    </>
  );
}
