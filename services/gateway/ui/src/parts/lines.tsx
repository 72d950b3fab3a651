// Long texts, line by line: a log of 100,000 lines, a result of 10 MiB.
import { useEffect, useMemo, useRef, useState, type ReactNode } from "react";
import { count } from "../format";
import { Icon } from "./icons";
import { Copy } from "./notice";
import { useSpan } from "./virtual";

const LINE_PX = 20;
const MOST_LINES = 500_000; // browsers end an element at some 16 million pixels
const MOST_CHARACTERS = 2_000; // of one line, as shown
const COPYABLE = 4 * 1024 * 1024;

interface Props<T> {
  label: string;
  lines: T[];
  textOf: (line: T) => string;
  before?: (line: T, index: number) => ReactNode;
  classOf?: (line: T) => string;
  /** Stay at the end while lines arrive, until somebody scrolls up. */
  follow?: boolean;
}

export function Lines<T>({ label, lines, textOf, before, classOf, follow }: Props<T>) {
  const scroller = useRef<HTMLDivElement>(null);
  const body = useRef<HTMLDivElement>(null);
  const atEnd = useRef(true);
  const shown = Math.min(lines.length, MOST_LINES);
  const span = useSpan(body, scroller, shown, LINE_PX);

  useEffect(() => {
    const box = scroller.current;
    if (follow && atEnd.current && box) box.scrollTop = box.scrollHeight;
  }, [follow, shown]);

  return (
    <div
      ref={scroller}
      className="lines"
      role="group"
      aria-label={label}
      tabIndex={0}
      onScroll={(event) => {
        const box = event.currentTarget;
        atEnd.current = box.scrollHeight - box.scrollTop - box.clientHeight < LINE_PX * 2;
      }}
    >
      <div ref={body} className="lines-body" style={{ height: shown * LINE_PX }}>
        <div style={{ transform: `translateY(${span.start * LINE_PX}px)` }}>
          {lines.slice(span.start, span.end).map((line, offset) => {
            const text = textOf(line);
            return (
              <div key={span.start + offset} className={`line ${classOf?.(line) ?? ""}`}>
                {before?.(line, span.start + offset)}
                <span className="line-text">
                  {text.length > MOST_CHARACTERS ? text.slice(0, MOST_CHARACTERS) : text}
                  {text.length > MOST_CHARACTERS && (
                    <span className="line-cut">
                      {" "}
                      … {count(text.length - MOST_CHARACTERS)} characters more
                    </span>
                  )}
                </span>
              </div>
            );
          })}
        </div>
      </div>
      {lines.length > shown && (
        <p className="faint small">The first {count(shown)} lines; download for all.</p>
      )}
    </div>
  );
}

export function download(name: string, text: string, type: string): void {
  const url = URL.createObjectURL(new Blob([text], { type }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  window.setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** A text, line by line; `href` has all of it, as it came. */
export function Text(props: { label: string; text: string; href: string; name: string }) {
  const { label, text } = props;
  const lines = useMemo(() => text.split("\n"), [text]);
  return (
    <div className="json">
      <div className="json-actions">
        {text.length <= COPYABLE && <Copy text={text} label={`Copy ${label.toLowerCase()}`} />}
        <a
          className="button ghost icon-only"
          aria-label={`Download ${label.toLowerCase()}`}
          title="Download"
          href={props.href}
          download={props.name}
        >
          <Icon name="download" />
        </a>
      </div>
      <Lines label={label} lines={lines} textOf={(line) => line} />
    </div>
  );
}

/** What filters as it is typed, a moment after the last key. */
export function useSettled<T>(value: T, delayMs: number): T {
  const [settled, setSettled] = useState(value);
  useEffect(() => {
    const timer = window.setTimeout(() => setSettled(value), delayMs);
    return () => window.clearTimeout(timer);
  }, [value, delayMs]);
  return settled;
}
