import type { Fn, InvocationStatus, Worker } from "../api/client";

const WORDS: Record<string, string> = {
  PENDING: "Pending",
  RUNNING: "Running",
  COMPLETED: "Completed",
  FAILED: "Failed",
  TIMED_OUT: "Timed out",
  CANCELLED: "Cancelled",
  DEAD_LETTERED: "Dead-lettered",
  READY: "Ready",
  DRAINING: "Draining",
  DRAINED: "Drained",
  LOST: "Lost",
};

export const hasEnded = (status: InvocationStatus) => status !== "PENDING" && status !== "RUNNING";

export const statusWord = (status: string) =>
  WORDS[status] ?? status.toLowerCase().replaceAll("_", " ");

/** Whether a version can run; nothing where it can. */
export function BuildState({ state }: { state: Fn["state"] }) {
  if (state !== "BUILDING" && state !== "FAILED") return null;
  return (
    <span className="status" data-status={state}>
      <span className="dot" aria-hidden="true" />
      {state === "BUILDING" ? "Building" : "Does not compile"}
    </span>
  );
}

export function Status({ status }: { status: InvocationStatus | Worker["state"] }) {
  return (
    <span className="status" data-status={status}>
      <span className="dot" aria-hidden="true" />
      {statusWord(status)}
    </span>
  );
}
