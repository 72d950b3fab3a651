// Figures of the latest invocations.
import type { Invocation } from "./api/client";
import { ms } from "./format";
import { hasEnded } from "./parts/status";

/** The value that `share` of them do not exceed; undefined of none. */
export function quantile(values: number[], share: number): number | undefined {
  if (!values.length) return undefined;
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.ceil(sorted.length * share) - 1)];
}

export interface Bucket {
  /** Its beginning. */
  at: number;
  completed: number;
  failed: number;
  open: number;
  p95: number | undefined;
}

export interface Summary {
  /** How far back these figures go. */
  spanMs: number;
  total: number;
  failed: number;
  ended: number;
  p50: number | undefined;
  p95: number | undefined;
  buckets: Bucket[];
  busiest: { name: string; calls: number; failed: number; p95: number | undefined }[];
}

const durationOf = (each: Invocation) => ms(each.metrics?.duration) ?? 0;
const isFailed = (each: Invocation) => hasEnded(each.status) && each.status !== "COMPLETED";

/**
 * Of records accepted within `spanMs` before `now`, newest first. If there are
 * more than these (`cut`), the figures go back only as far as these do.
 */
export function summarize(
  invocations: Invocation[],
  now: number,
  spanMs: number,
  buckets: number,
  cut: boolean,
): Summary {
  const oldest = invocations[invocations.length - 1];
  const span = cut && oldest ? Math.max(1000, now - Date.parse(oldest.created_at ?? "")) : spanMs;
  const begin = now - span;
  const width = span / buckets;
  const sorted: Invocation[][] = Array.from({ length: buckets }, () => []);
  for (const each of invocations) {
    const index = Math.floor((Date.parse(each.created_at ?? "") - begin) / width);
    sorted[Math.max(0, Math.min(buckets - 1, index))]?.push(each);
  }
  const ended = invocations.filter((each) => hasEnded(each.status));
  const durations = ended.map(durationOf);
  const byName = Map.groupBy(invocations, (each) => each.function_name);
  return {
    spanMs: span,
    total: invocations.length,
    failed: ended.filter(isFailed).length,
    ended: ended.length,
    p50: quantile(durations, 0.5),
    p95: quantile(durations, 0.95),
    buckets: sorted.map((bucket, index) => ({
      at: begin + index * width,
      completed: bucket.filter((each) => each.status === "COMPLETED").length,
      failed: bucket.filter(isFailed).length,
      open: bucket.filter((each) => !hasEnded(each.status)).length,
      p95: quantile(bucket.filter((each) => hasEnded(each.status)).map(durationOf), 0.95),
    })),
    busiest: [...byName]
      .map(([name, all]) => ({
        name,
        calls: all.length,
        failed: all.filter(isFailed).length,
        p95: quantile(all.filter((each) => hasEnded(each.status)).map(durationOf), 0.95),
      }))
      .sort((a, b) => b.calls - a.calls)
      .slice(0, 6),
  };
}
