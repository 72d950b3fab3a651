import type { InvocationStatus, Worker } from "../api/client";

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

export function Status({ status }: { status: InvocationStatus | Worker["state"] }) {
  return (
    <span className="status" data-status={status}>
      <span className="dot" aria-hidden="true" />
      {statusWord(status)}
    </span>
  );
}
