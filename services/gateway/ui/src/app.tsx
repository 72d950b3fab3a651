import { Component, useEffect, useRef, useState, type ReactNode } from "react";
import { useAway } from "./live";
import { Dialog } from "./parts/dialog";
import { Icon, type IconName } from "./parts/icons";
import { Empty } from "./parts/notice";
import { go, href, parse, useHash, type Route } from "./router";
import { Create } from "./screens/create";
import { DeadLetters } from "./screens/deadletters";
import { FunctionScreen } from "./screens/function";
import { Functions } from "./screens/functions";
import { InvocationScreen } from "./screens/invocation";
import { Invocations } from "./screens/invocations";
import { Overview } from "./screens/overview";
import { Workers } from "./screens/workers";
import { THEMES, useTheme } from "./theme";

interface Place {
  id: IconName;
  title: string;
  path: string;
  key: string;
}

const PLACES: Place[] = [
  { id: "overview", title: "Overview", path: "", key: "o" },
  { id: "functions", title: "Functions", path: "functions", key: "f" },
  { id: "invocations", title: "Invocations", path: "invocations", key: "i" },
  { id: "deadletters", title: "Dead letters", path: "dead-letters", key: "d" },
  { id: "workers", title: "Workers", path: "workers", key: "w" },
];

function screen(route: Route): { title: string; place: string; content: ReactNode } {
  const [first = "", second, third = ""] = route.parts;
  if (first === "") return { title: "Overview", place: "", content: <Overview /> };
  if (first === "new") return { title: "New function", place: "functions", content: <Create /> };
  if (first === "functions" && second)
    return {
      title: second,
      place: "functions",
      content: <FunctionScreen key={second} name={second} tab={third} />,
    };
  if (first === "functions")
    return { title: "Functions", place: "functions", content: <Functions route={route} /> };
  if (first === "invocations" && second)
    return {
      title: second,
      place: "invocations",
      content: <InvocationScreen key={second} id={second} />,
    };
  if (first === "invocations")
    return { title: "Invocations", place: "invocations", content: <Invocations route={route} /> };
  if (first === "dead-letters")
    return { title: "Dead letters", place: "dead-letters", content: <DeadLetters /> };
  if (first === "workers") return { title: "Workers", place: "workers", content: <Workers /> };
  return {
    title: "Not found",
    place: "-",
    content: (
      <Empty title="There is no such page" action={<a href={href()}>Go to the overview</a>} />
    ),
  };
}

export function App() {
  const hash = useHash();
  const route = parse(hash);
  const { title, place, content } = screen(route);
  const path = route.parts.join("/");
  const main = useRef<HTMLElement>(null);
  const [help, setHelp] = useState(false);
  useKeys(() => setHelp(true));

  useEffect(() => {
    document.title = `${title} · faas-mesh`;
  }, [title]);
  // A screen begins at its top, and whoever listens is told that it is another.
  const first = useRef(true);
  useEffect(() => {
    if (first.current) first.current = false;
    else {
      window.scrollTo(0, 0);
      if (document.activeElement === document.body) main.current?.focus({ preventScroll: true });
    }
  }, [path]);

  return (
    <>
      <a
        className="skip"
        href="#main"
        onClick={(event) => {
          event.preventDefault();
          main.current?.focus();
        }}
      >
        Skip to content
      </a>
      <div className="shell">
        <aside className="side">
          <a className="brand" href={href()}>
            <Mark /> faas-mesh
          </a>
          <nav aria-label="Main">
            {PLACES.map((each) => (
              <a
                key={each.id}
                href={href(...(each.path ? [each.path] : []))}
                aria-current={each.path === place ? "page" : undefined}
                title={`g ${each.key}`}
              >
                <Icon name={each.id} /> <span>{each.title}</span>
              </a>
            ))}
          </nav>
          <div className="side-foot">
            <ThemeSwitch />
            <button
              type="button"
              className="button ghost icon-only"
              aria-label="Keyboard shortcuts"
              title="Keyboard shortcuts (?)"
              onClick={() => setHelp(true)}
            >
              <Icon name="keyboard" />
            </button>
          </div>
        </aside>
        <div className="content">
          <Away />
          <main ref={main} id="main" tabIndex={-1}>
            <Boundary key={hash.split("?")[0]}>{content}</Boundary>
          </main>
        </div>
      </div>
      {help && <Help onClose={() => setHelp(false)} />}
    </>
  );
}

function Mark() {
  return (
    <svg width="22" height="22" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="8" className="mark-ground" />
      <g fill="none" stroke="#fff" strokeWidth="2" strokeLinecap="round">
        <path d="M9 10 16 22 23 10M9 10h14" />
      </g>
      <g fill="#fff">
        <circle cx="9" cy="10" r="3" />
        <circle cx="23" cy="10" r="3" />
        <circle cx="16" cy="22" r="3" />
      </g>
    </svg>
  );
}

/** Shown while the server cannot be reached, gone when it answers again. */
function Away() {
  const away = useAway();
  return (
    <div role="status" aria-live="polite">
      {away && (
        <p className="away">
          <span className="dot" aria-hidden="true" />
          <span>
            <strong>{away}</strong> What you see may be old. Trying again …
          </span>
        </p>
      )}
    </div>
  );
}

function ThemeSwitch() {
  const [theme, setTheme] = useTheme();
  return (
    <div className="segments segments-icons" role="radiogroup" aria-label="Colours">
      {THEMES.map(({ id, title, icon }) => (
        <label key={id} title={title}>
          <input
            type="radio"
            name="theme"
            aria-label={title}
            checked={theme === id}
            onChange={() => setTheme(id)}
          />
          <Icon name={icon} />
        </label>
      ))}
    </div>
  );
}

const isTyping = (target: EventTarget | null) => {
  const element = target as HTMLElement | null;
  const inner = element?.shadowRoot?.activeElement as HTMLElement | null | undefined;
  const found = inner ?? element;
  return (
    found instanceof HTMLElement &&
    (found.isContentEditable || ["INPUT", "TEXTAREA", "SELECT"].includes(found.tagName))
  );
};

/** `g` and a letter goes to a screen, `/` to the filter, `c` makes a function, `?` tells these. */
function useKeys(help: () => void) {
  const latest = useRef(help);
  useEffect(() => {
    latest.current = help;
  });
  useEffect(() => {
    let going = 0; // when g was pressed
    const onKey = (event: KeyboardEvent) => {
      if (event.ctrlKey || event.metaKey || event.altKey || isTyping(event.target)) return;
      if (document.querySelector("dialog[open]")) return;
      if (Date.now() - going < 1500) {
        going = 0;
        const place = PLACES.find((each) => each.key === event.key);
        if (place) go(href(...(place.path ? [place.path] : [])));
        return;
      }
      if (event.key === "g") going = Date.now();
      else if (event.key === "c") go(href("new"));
      else if (event.key === "?") latest.current();
      else if (event.key === "/") {
        const filter = document.querySelector<HTMLInputElement>("[data-filter]");
        if (filter) {
          event.preventDefault();
          filter.focus();
          filter.select();
        }
      }
    };
    window.addEventListener("keydown", onKey);
    return () => window.removeEventListener("keydown", onKey);
  }, []);
}

const KEYS: [keys: string[], what: string][] = [
  ...PLACES.map((place): [string[], string] => [["g", place.key], place.title]),
  [["c"], "New function"],
  [["/"], "Filter a list"],
  [["↓", "↑"], "Next and previous row of a list"],
  [["Ctrl", "Enter"], "In the code: deploy. In a payload: invoke"],
  [["Esc", "Tab"], "Leave an editor"],
  [["?"], "This help"],
];

function Help({ onClose }: { onClose: () => void }) {
  return (
    <Dialog title="Keyboard" onClose={onClose}>
      <dl className="keys-list">
        {KEYS.map(([keys, what]) => (
          <div key={what}>
            <dt>
              {keys.map((key) => (
                <kbd key={key}>{key}</kbd>
              ))}
            </dt>
            <dd>{what}</dd>
          </div>
        ))}
      </dl>
      <form method="dialog" className="actions end">
        <button type="submit" className="button">
          Close
        </button>
      </form>
    </Dialog>
  );
}

/** A screen that broke says so, and leaves the others usable. */
class Boundary extends Component<{ children: ReactNode }, { error?: Error }> {
  override state: { error?: Error } = {};
  static getDerivedStateFromError(error: Error) {
    return { error };
  }
  override render() {
    const { error } = this.state;
    if (!error) return this.props.children;
    return (
      <Empty
        title="This page broke"
        action={
          <button type="button" className="button" onClick={() => this.setState({})}>
            Try again
          </button>
        }
      >
        <p>
          A mistake of ours, not of your function: <code>{error.message}</code>
        </p>
      </Empty>
    );
  }
}
