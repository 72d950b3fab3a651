// A text editor with highlighting; a plain one until, or if never, that is loaded.
import { useEffect, useRef, useState } from "react";
import type { Mounted, Options } from "./codemirror";

type Props = Options & { className?: string };

export function Editor(props: Props) {
  const host = useRef<HTMLDivElement>(null);
  const mounted = useRef<Mounted>(undefined);
  const latest = useRef(props);
  const [ready, setReady] = useState(false);
  useEffect(() => {
    latest.current = props;
    mounted.current?.setValue(props.value);
  });

  const { language, label, readOnly, original } = props;
  useEffect(() => {
    let gone = false;
    const load = async () => {
      const { mount } = await import("./codemirror");
      if (gone || !host.current) return;
      mounted.current = mount(host.current, {
        value: latest.current.value,
        language,
        label,
        ...(readOnly !== undefined && { readOnly }),
        ...(original !== undefined && { original }),
        onChange: (value) => latest.current.onChange?.(value),
        ...(latest.current.onSubmit && { onSubmit: () => latest.current.onSubmit?.() }),
      });
      // Whoever is writing already goes on.
      if (host.current.nextElementSibling === document.activeElement) mounted.current.focus();
      setReady(true);
    };
    // Without it, what is shown does all but the colours.
    void load().catch((error: unknown) => console.warn("The editor did not load.", error));
    return () => {
      gone = true;
      mounted.current?.destroy();
      mounted.current = undefined;
    };
  }, [language, label, readOnly, original]);

  return (
    <div className={`editor ${props.className ?? ""}`}>
      <div ref={host} className="editor-host" hidden={!ready} />
      {!ready && (
        <textarea
          className="editor-plain"
          aria-label={label}
          spellCheck={false}
          readOnly={readOnly}
          value={props.value}
          onChange={(event) => props.onChange?.(event.target.value)}
        />
      )}
    </div>
  );
}
