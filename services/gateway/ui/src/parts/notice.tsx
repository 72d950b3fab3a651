// What is shown where there is nothing to show: why, and what to do.
import { useEffect, useState, type ReactNode } from "react";
import { ApiError } from "../api/client";
import { Icon } from "./icons";

export function Empty(props: { title: string; children?: ReactNode; action?: ReactNode }) {
  return (
    <div className="empty">
      <h2>{props.title}</h2>
      {props.children}
      {props.action && <p className="empty-action">{props.action}</p>}
    </div>
  );
}

const CURES: Record<string, string> = {
  UNREACHABLE: "This page asks again by itself. Is `faas up` running?",
  DEPENDENCY_UNAVAILABLE: "A part that is needed is away. This page asks again by itself.",
  ETAG_MISMATCH: "Somebody else was faster. Reload to see their change, then make yours again.",
  FUNCTION_NOT_FOUND: "It may have been deleted or renamed.",
  INVOCATION_NOT_FOUND: "Records are kept for a while, then removed.",
  FUNCTION_EXISTS: "Pick another name, or open that function and change it.",
};

export function Failure({ error }: { error: Error }) {
  const known = error instanceof ApiError ? error : undefined;
  const cure = known && CURES[known.reason];
  return (
    <div className="failure" role="alert">
      <p className="failure-title">{error.message}</p>
      {known && known.fields.length > 0 && (
        <ul>
          {known.fields.map((each, index) => (
            <li key={index}>
              <code>{each.field}</code> {each.description}
            </li>
          ))}
        </ul>
      )}
      {cure && <p>{cure}</p>}
      {known?.reason && <p className="faint mono small">{known.reason}</p>}
    </div>
  );
}

/** Grey bars where rows will be; after a moment, so that quick answers do not flicker. */
export function Loading({ rows = 3 }: { rows?: number }) {
  return (
    <div className="loading" role="status" aria-label="Loading">
      {Array.from({ length: rows }, (_, index) => (
        <span key={index} className="skeleton" />
      ))}
    </div>
  );
}

export function Copy({ text, label }: { text: string; label: string }) {
  const [copied, setCopied] = useState(false);
  useEffect(() => {
    if (!copied) return;
    const timer = window.setTimeout(() => setCopied(false), 1500);
    return () => window.clearTimeout(timer);
  }, [copied]);
  if (!window.isSecureContext) return null; // browsers have no clipboard there
  return (
    <button
      type="button"
      className="button ghost icon-only"
      aria-label={copied ? "Copied" : label}
      title={label}
      onClick={() => {
        void navigator.clipboard.writeText(text).then(
          () => setCopied(true),
          () => setCopied(false),
        );
      }}
    >
      <Icon name={copied ? "check" : "copy"} />
    </button>
  );
}

/** A command to try in a terminal. */
export function Command({ text }: { text: string }) {
  return (
    <div className="command">
      <pre tabIndex={0} aria-label="Command">
        <code>{text}</code>
      </pre>
      <Copy text={text} label="Copy command" />
    </div>
  );
}

/** A word for the shell, quoted where it must be. */
export function quoted(text: string): string {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

export function invokeCommand(name: string, payload = '{"name": "Ada"}'): string {
  const body = `{"function_id": "${name}", "payload": ${payload}, "wait": "30s"}`;
  return `curl ${window.location.origin}/invoke \\\n  -H 'Content-Type: application/json' \\\n  -d ${quoted(body)}`;
}
