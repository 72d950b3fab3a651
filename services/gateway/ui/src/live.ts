// Reads that stay fresh: asked again while somebody looks, and not while nobody does.
import { useCallback, useEffect, useRef, useState, useSyncExternalStore } from "react";
import { ApiError } from "./api/client";

/** Whether the server answers, as all reads together see it. */
class Connection {
  private away: string | undefined;
  private listeners = new Set<() => void>();

  subscribe = (listener: () => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  /** Why it is away; undefined while it answers. */
  reason = () => this.away;

  report(away: string | undefined) {
    if (this.away === away) return;
    this.away = away;
    for (const listener of this.listeners) listener();
  }
}

export const connection = new Connection();

export function useAway(): string | undefined {
  return useSyncExternalStore(connection.subscribe, connection.reason);
}

export interface Live<T> {
  data: T | undefined;
  error: Error | undefined;
  /** Ask now. */
  refresh: () => void;
}

const RETRY_MS = [500, 1000, 2000, 4000] as const;

interface Seen<T> {
  key: string;
  data: T | undefined;
  error: Error | undefined;
}

/**
 * What `read` answers, now and every `intervalMs`; once if that is 0. What was
 * read stays while a later read fails; another `key` is another thing.
 */
export function useLive<T>(
  key: string,
  read: (signal: AbortSignal) => Promise<T>,
  intervalMs: number | ((data: T) => number),
): Live<T> {
  const [seen, setSeen] = useState<Seen<T>>({ key, data: undefined, error: undefined });
  const latest = useRef({ read, intervalMs });
  const again = useRef<() => void>(() => undefined);
  useEffect(() => {
    latest.current = { read, intervalMs };
  });

  useEffect(() => {
    const gone = new AbortController();
    let timer: number | undefined;
    let busy = false;
    let wanted = false;
    let failures = 0;

    const ask = async () => {
      window.clearTimeout(timer);
      if (busy) {
        wanted = true;
        return;
      }
      busy = true;
      wanted = false;
      let next = 0;
      try {
        const data = await latest.current.read(gone.signal);
        if (gone.signal.aborted) return;
        failures = 0;
        connection.report(undefined);
        setSeen({ key, data, error: undefined });
        const every = latest.current.intervalMs;
        next = typeof every === "function" ? every(data) : every;
      } catch (error) {
        if (gone.signal.aborted) return;
        const failure = error instanceof Error ? error : new Error(String(error));
        if (failure instanceof ApiError && failure.isAway) {
          connection.report(failure.message);
          next = RETRY_MS[Math.min(failures++, RETRY_MS.length - 1)] ?? 4000;
        } else if (typeof latest.current.intervalMs === "number") {
          next = latest.current.intervalMs;
        }
        setSeen((old) => ({ key, data: old.key === key ? old.data : undefined, error: failure }));
      } finally {
        busy = false;
      }
      if (wanted) void ask();
      else if (next > 0 && !document.hidden) timer = window.setTimeout(() => void ask(), next);
      else if (next > 0) wanted = true;
    };
    const look = () => {
      if (document.hidden) {
        window.clearTimeout(timer);
        wanted = true;
      } else if (wanted) void ask();
    };

    again.current = () => void ask();
    document.addEventListener("visibilitychange", look);
    if (document.hidden) wanted = true;
    else void ask();
    return () => {
      gone.abort();
      window.clearTimeout(timer);
      document.removeEventListener("visibilitychange", look);
    };
  }, [key]);

  const refresh = useCallback(() => again.current(), []);
  const mine = seen.key === key;
  return { data: mine ? seen.data : undefined, error: mine ? seen.error : undefined, refresh };
}

/** The time, told anew every second while the page is seen. */
export function useNow(): number {
  const [now, setNow] = useState(() => Date.now());
  useEffect(() => {
    const timer = window.setInterval(() => {
      if (!document.hidden) setNow(Date.now());
    }, 1000);
    return () => window.clearInterval(timer);
  }, []);
  return now;
}

export interface Page<T> {
  items: T[];
  next: string;
}

export interface Paged<T> {
  items: T[];
  /** The first page has been read. */
  ready: boolean;
  error: Error | undefined;
  more: boolean;
  loading: boolean;
  loadMore: () => void;
  refresh: () => void;
}

/**
 * A list, newest first by id: its head is read again and again, what is further
 * down once, when it is asked for.
 */
export function usePaged<T extends { id: string }>(
  key: string,
  read: (token: string, signal: AbortSignal) => Promise<Page<T>>,
  intervalMs: number,
): Paged<T> {
  const held = useRef<{ key: string; page: Page<T> }>(undefined);
  const [grown, setGrown] = useState<{ key: string; page: Page<T>; error?: Error }>();
  const [loading, setLoading] = useState(false);

  const head = useLive(
    key,
    async (signal) => {
      const first = await read("", signal);
      const page = held.current?.key === key ? renew(held.current.page, first) : first;
      held.current = { key, page };
      setGrown(undefined);
      return page;
    },
    intervalMs,
  );

  const loadMore = async () => {
    const from = held.current;
    if (from?.key !== key || !from.page.next || loading) return;
    setLoading(true);
    try {
      const more = await read(from.page.next, new AbortController().signal);
      const page = { items: append(held.current?.page.items ?? [], more.items), next: more.next };
      if (held.current?.key !== key) return;
      held.current = { key, page };
      setGrown({ key, page });
    } catch (error) {
      const failure = error instanceof Error ? error : new Error(String(error));
      setGrown({ key, page: from.page, error: failure });
    } finally {
      setLoading(false);
    }
  };

  const mine = grown?.key === key ? grown : undefined;
  const page = mine?.page ?? head.data;
  return {
    items: page?.items ?? [],
    ready: page !== undefined,
    error: mine?.error ?? head.error,
    more: Boolean(page?.next),
    loading,
    loadMore: () => void loadMore(),
    refresh: head.refresh,
  };
}

/** What is known, with a head read anew: what is older than the head stays. */
export function renew<T extends { id: string }>(known: Page<T>, head: Page<T>): Page<T> {
  const last = head.items[head.items.length - 1];
  const first = known.items[0];
  // So much is new that something may lie between: begin again.
  if (!last || !first || !head.next || last.id > first.id) return head;
  const older = known.items.filter((item) => item.id < last.id);
  return older.length ? { items: [...head.items, ...older], next: known.next } : head;
}

function append<T extends { id: string }>(known: T[], more: T[]): T[] {
  const seen = new Set(known.map((item) => item.id));
  return [...known, ...more.filter((item) => !seen.has(item.id))];
}
