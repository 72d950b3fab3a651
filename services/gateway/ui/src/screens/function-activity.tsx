import { get } from "../api/client";
import * as format from "../format";
import { useLive } from "../live";
import { Dots, type Dot } from "../parts/charts";
import { Command, Empty, invokeCommand } from "../parts/notice";
import { hasEnded, statusWord } from "../parts/status";
import { quantile } from "../summary";
import { InvocationList, useInvocations } from "./invocations";
import type { Of } from "./function";
import { Figure, Metrics } from "./function-metrics";

const PLOTTED = 300;

export function Activity({ fn }: Of) {
  const { data } = useLive(
    `activity/${fn.id}`,
    async (signal) =>
      (await get("/invocations", { query: { function_id: fn.id, page_size: PLOTTED }, signal }))
        .invocations,
    3000,
  );
  const list = useInvocations({ functionId: fn.id });
  const ended = (data ?? []).filter((each) => hasEnded(each.status) && each.metrics);
  const runs = ended.map((each) => format.ms(each.metrics?.duration) ?? 0);
  const failed = ended.filter((each) => each.status !== "COMPLETED").length;
  const memory = Math.max(0, ...ended.map((each) => Number(each.metrics?.peak_memory_bytes ?? 0)));
  const dots: Dot[] = ended
    .map((each, index) => ({
      at: 1 - index / Math.max(1, ended.length - 1),
      value: format.ms(each.metrics?.duration) ?? 0,
      className: each.status === "COMPLETED" ? "dot-ok" : "dot-bad",
      title: `${statusWord(each.status)}, ${format.duration(format.ms(each.metrics?.duration))}, ${format.moment(each.created_at)}`,
    }))
    .reverse();
  return (
    <div className="stack">
      <Metrics fn={fn} />
      {ended.length > 1 && (
        <section className="card" aria-label="Latest calls">
          <div className="card-head">
            <h2>Duration</h2>
            <span className="faint small">of the latest {ended.length} calls, oldest first</span>
          </div>
          <dl className="figures">
            <Figure name="Median" value={format.duration(quantile(runs, 0.5))} />
            <Figure name="95 of 100 within" value={format.duration(quantile(runs, 0.95))} />
            <Figure name="Failed" value={format.percent(failed / ended.length)} />
            {memory > 0 && (
              <Figure
                name="Most memory"
                value={`${format.bytes(memory)} of ${fn.memory_mb} MiB`}
              />
            )}
          </dl>
          <Dots
            label={`Durations of the latest ${ended.length} calls: median ${format.duration(quantile(runs, 0.5))}`}
            dots={dots}
            ticks={format.duration}
          />
        </section>
      )}
      <InvocationList
        list={list}
        ofOne
        label={`Invocations of ${fn.name}`}
        none={
          <Empty title="Not invoked yet">
            <p>Test it under Code, or call it from a terminal:</p>
            <Command text={invokeCommand(fn.name)} />
          </Empty>
        }
      />
    </div>
  );
}

