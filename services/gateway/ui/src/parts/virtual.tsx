// Long lists: only the rows that can be seen are there.
import {
  useLayoutEffect,
  useRef,
  useState,
  useSyncExternalStore,
  type KeyboardEvent,
  type ReactNode,
  type RefObject,
} from "react";

const OVERSCAN = 12; // rows beyond either edge

export interface Span {
  start: number;
  end: number;
}

/** The rows of `element`, `count` of `height` px each, that its scroller or the window shows. */
export function useSpan(
  element: RefObject<HTMLElement | null>,
  scroller: RefObject<HTMLElement | null> | undefined,
  count: number,
  height: number,
): Span {
  const [span, setSpan] = useState<Span>({ start: 0, end: Math.min(count, 40) });
  useLayoutEffect(() => {
    const box = scroller?.current;
    const measure = () => {
      const rows = element.current?.getBoundingClientRect();
      if (!rows) return;
      const top = box ? box.getBoundingClientRect().top : 0;
      const bottom = top + (box ? box.clientHeight : window.innerHeight);
      const start = Math.max(0, Math.floor((top - rows.top) / height) - OVERSCAN);
      const end = Math.min(count, Math.ceil((bottom - rows.top) / height) + OVERSCAN);
      setSpan((old) => (old.start === start && old.end === end ? old : { start, end }));
    };
    measure();
    const moving = box ?? window;
    moving.addEventListener("scroll", measure, { passive: true });
    window.addEventListener("resize", measure);
    return () => {
      moving.removeEventListener("scroll", measure);
      window.removeEventListener("resize", measure);
    };
  }, [element, scroller, count, height]);
  return { start: Math.min(span.start, count), end: Math.min(Math.max(span.end, span.start), count) };
}

export function useMedia(query: string): boolean {
  return useSyncExternalStore(
    (changed) => {
      const media = window.matchMedia(query);
      media.addEventListener("change", changed);
      return () => media.removeEventListener("change", changed);
    },
    () => window.matchMedia(query).matches,
  );
}

export interface Column<T> {
  title: string;
  /** Instead of the title. */
  header?: ReactNode;
  /** Of the cell, for the grid's widths and for the phone. */
  className: string;
  cell: (item: T) => ReactNode;
}

interface Props<T> {
  label: string;
  items: T[];
  columns: Column<T>[];
  /** Class that sets the widths of the columns. */
  className: string;
  idOf: (item: T) => string;
  more?: boolean;
  loading?: boolean;
  onMore?: () => void;
}

/** A table that scrolls with the page. Its first cell holds the row's link; arrows move between them. */
export function VirtualTable<T>(props: Props<T>) {
  const body = useRef<HTMLDivElement>(null);
  const height = useMedia("(max-width: 720px)") ? 66 : 45;
  const { items, columns, more, loading, onMore } = props;
  const span = useSpan(body, undefined, items.length, height);

  useLayoutEffect(() => {
    if (more && !loading && span.end >= items.length - 5) onMore?.();
  }, [more, loading, span.end, items.length, onMore]);

  const onKeyDown = (event: KeyboardEvent) => {
    const step = { ArrowDown: 1, ArrowUp: -1, j: 1, k: -1 }[event.key];
    const row = (event.target as HTMLElement).closest<HTMLElement>("[data-index]");
    if (!step || !row || event.ctrlKey || event.metaKey || event.altKey) return;
    const next = body.current?.querySelector<HTMLElement>(
      `[data-index="${Number(row.dataset["index"]) + step}"] a`,
    );
    if (next) {
      event.preventDefault();
      next.focus();
      next.scrollIntoView({ block: "nearest" });
    }
  };

  return (
    <div
      className={`table ${props.className}`}
      role="table"
      aria-label={props.label}
      aria-rowcount={more ? -1 : items.length + 1}
    >
      <div role="rowgroup" className="table-head">
        <div role="row" className="row" aria-rowindex={1}>
          {columns.map((column) => (
            <div key={column.title} role="columnheader" className={column.className}>
              {column.header ?? column.title}
            </div>
          ))}
        </div>
      </div>
      <div
        ref={body}
        role="rowgroup"
        className="table-body"
        style={{ height: items.length * height }}
        onKeyDown={onKeyDown}
      >
        {items.slice(span.start, span.end).map((item, offset) => {
          const index = span.start + offset;
          return (
            <div
              key={props.idOf(item)}
              role="row"
              className="row"
              aria-rowindex={index + 2}
              data-index={index}
              style={{ height, transform: `translateY(${index * height}px)` }}
            >
              {columns.map((column) => (
                <div key={column.title} role="cell" className={column.className}>
                  {column.cell(item)}
                </div>
              ))}
            </div>
          );
        })}
      </div>
      {loading && <p className="faint small table-foot">Loading more …</p>}
    </div>
  );
}
