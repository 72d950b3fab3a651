// Screens by the part of the address after '#': the server knows but one page.
import { useSyncExternalStore } from "react";

export interface Route {
  /** Parts of the path, decoded. */
  parts: string[];
  query: URLSearchParams;
}

/** "#/functions/hello/code?x=1" as parts and query. */
export function parse(hash: string): Route {
  const [path = "", query = ""] = hash.replace(/^#\/?/, "").split("?", 2);
  return { parts: path.split("/").filter(Boolean).map(decode), query: new URLSearchParams(query) };
}

function decode(part: string): string {
  try {
    return decodeURIComponent(part);
  } catch {
    return part; // somebody's own '%'
  }
}

/** The address of a screen. */
export function href(...parts: (string | number)[]): string {
  return `#/${parts.map((part) => encodeURIComponent(String(part))).join("/")}`;
}

export function go(to: string): void {
  window.location.hash = to;
}

/** Change the query of this screen, without a step in the history. */
export function replaceQuery(changes: Record<string, string>): void {
  const [path = ""] = window.location.hash.split("?", 1);
  const query = parse(window.location.hash).query;
  for (const [name, value] of Object.entries(changes))
    if (value) query.set(name, value);
    else query.delete(name);
  const text = query.toString();
  window.history.replaceState(null, "", `${path || "#/"}${text ? `?${text}` : ""}`);
  window.dispatchEvent(new HashChangeEvent("hashchange"));
}

function subscribe(changed: () => void): () => void {
  window.addEventListener("hashchange", changed);
  return () => window.removeEventListener("hashchange", changed);
}

export function useHash(): string {
  return useSyncExternalStore(subscribe, () => window.location.hash);
}
