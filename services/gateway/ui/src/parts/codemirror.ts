// CodeMirror, loaded when an editor is first seen. It lives in a shadow tree,
// where its styles are constructed sheets: the page's policy allows no others.
import { closeBrackets, closeBracketsKeymap } from "@codemirror/autocomplete";
import { defaultKeymap, history, historyKeymap, indentWithTab } from "@codemirror/commands";
import {
  HighlightStyle,
  bracketMatching,
  indentOnInput,
  indentUnit,
  syntaxHighlighting,
} from "@codemirror/language";
import { unifiedMergeView } from "@codemirror/merge";
import { highlightSelectionMatches, searchKeymap } from "@codemirror/search";
import { Compartment, EditorState, Prec, type Extension } from "@codemirror/state";
import {
  EditorView,
  drawSelection,
  highlightActiveLine,
  highlightActiveLineGutter,
  keymap,
  lineNumbers,
} from "@codemirror/view";
import { tags as t } from "@lezer/highlight";

export type Language = "python" | "node" | "go" | "json" | "text";

const languages: Record<string, () => Promise<Extension>> = {
  python: async () => (await import("@codemirror/lang-python")).python(),
  node: async () => (await import("@codemirror/lang-javascript")).javascript(),
  go: async () => (await import("@codemirror/lang-go")).go(),
  json: async () => (await import("@codemirror/lang-json")).json(),
};

const INDENT: Record<string, string> = { python: "    ", go: "\t" };

const colours = HighlightStyle.define([
  { tag: [t.keyword, t.controlKeyword, t.moduleKeyword, t.operatorKeyword], color: "var(--code-keyword)" },
  { tag: [t.string, t.special(t.string), t.regexp], color: "var(--code-string)" },
  { tag: [t.number, t.bool, t.null, t.atom], color: "var(--code-number)" },
  { tag: [t.comment, t.docString], color: "var(--code-comment)", fontStyle: "italic" },
  { tag: [t.function(t.variableName), t.function(t.propertyName)], color: "var(--code-function)" },
  { tag: [t.definition(t.variableName), t.propertyName, t.attributeName], color: "var(--code-name)" },
  { tag: [t.typeName, t.className, t.namespace], color: "var(--code-type)" },
  { tag: t.invalid, color: "var(--failed)" },
]);

const theme = EditorView.theme({
  "&": { color: "var(--text)", backgroundColor: "transparent", fontSize: "13px", height: "100%" },
  "&.cm-focused": { outline: "none" },
  ".cm-scroller": { fontFamily: "var(--mono)", lineHeight: "1.6" },
  ".cm-content": { padding: "12px 0", caretColor: "var(--text)" },
  ".cm-line": { padding: "0 16px 0 8px" },
  ".cm-gutters": { backgroundColor: "transparent", color: "var(--faint)", border: "none" },
  ".cm-lineNumbers .cm-gutterElement": { padding: "0 8px 0 16px", minWidth: "36px" },
  ".cm-activeLine": { backgroundColor: "transparent" },
  "&.cm-focused .cm-activeLine": { backgroundColor: "var(--hover)" },
  ".cm-activeLineGutter": { backgroundColor: "transparent", color: "var(--muted)" },
  ".cm-cursor": { borderLeftColor: "var(--text)" },
  "& > .cm-scroller > .cm-selectionLayer .cm-selectionBackground": {
    backgroundColor: "var(--selection)",
  },
  "&.cm-focused > .cm-scroller > .cm-selectionLayer .cm-selectionBackground": {
    backgroundColor: "var(--selection)",
  },
  ".cm-matchingBracket": { backgroundColor: "transparent" },
  "&.cm-focused .cm-matchingBracket": { backgroundColor: "var(--selection)", outline: "none" },
  ".cm-selectionMatch": { backgroundColor: "var(--hover)" },
  ".cm-panels": { backgroundColor: "var(--surface)", color: "var(--text)" },
  ".cm-panels-bottom": { borderTop: "1px solid var(--line)" },
  ".cm-changedLine": { backgroundColor: "var(--added) !important" },
  ".cm-deletedChunk": { backgroundColor: "var(--removed) !important", paddingLeft: "8px" },
  ".cm-changedText": { background: "var(--added-strong) !important" },
  ".cm-deletedText, .cm-deletedChunk .cm-deletedText": {
    background: "var(--removed-strong) !important",
    textDecoration: "none",
  },
  ".cm-collapsedLines": {
    color: "var(--muted)",
    background: "var(--hover)",
    padding: "4px 16px",
    fontFamily: "var(--sans)",
  },
});

// Typing over a selection is done here: browsers would keep the colour of what was
// there by a style attribute, which the page's policy forbids.
const typeOver = EditorView.domEventHandlers({
  beforeinput(event, view) {
    const { main } = view.state.selection;
    const text = event.data;
    if (event.inputType !== "insertText" || text === null || main.empty) return false;
    if (view.composing || view.state.readOnly) return false;
    event.preventDefault();
    const insert = () =>
      view.state.update(view.state.replaceSelection(text), {
        userEvent: "input.type",
        scrollIntoView: true,
      });
    const handlers = view.state.facet(EditorView.inputHandler);
    if (!handlers.some((handle) => handle(view, main.from, main.to, text, insert)))
      view.dispatch(insert());
    return true;
  },
});

export interface Options {
  value: string;
  language: string;
  label: string;
  readOnly?: boolean;
  /** Show what changed since this text. */
  original?: string;
  onChange?: (value: string) => void;
  /** Ctrl- or Cmd-Enter. */
  onSubmit?: () => void;
}

export interface Mounted {
  setValue: (value: string) => void;
  focus: () => void;
  destroy: () => void;
}

export function mount(host: HTMLElement, options: Options): Mounted {
  const root = host.shadowRoot ?? host.attachShadow({ mode: "open" });
  const language = new Compartment();
  const view = new EditorView({
    root,
    parent: root,
    state: EditorState.create({
      doc: options.value,
      extensions: [
        lineNumbers(),
        highlightActiveLineGutter(),
        history(),
        drawSelection(),
        indentOnInput(),
        bracketMatching(),
        closeBrackets(),
        highlightActiveLine(),
        highlightSelectionMatches(),
        indentUnit.of(INDENT[options.language] ?? "  "),
        syntaxHighlighting(colours),
        theme,
        typeOver,
        language.of([]),
        EditorView.contentAttributes.of({ "aria-label": options.label, tabindex: "0" }),
        Prec.highest(
          keymap.of([
            {
              key: "Mod-Enter",
              run: () => {
                options.onSubmit?.();
                return options.onSubmit !== undefined;
              },
            },
          ]),
        ),
        keymap.of([
          ...closeBracketsKeymap,
          ...defaultKeymap,
          ...searchKeymap,
          ...historyKeymap,
          indentWithTab,
        ]),
        options.readOnly ? [EditorState.readOnly.of(true), EditorView.editable.of(false)] : [],
        options.original === undefined
          ? []
          : unifiedMergeView({
              original: options.original,
              mergeControls: false,
              gutter: false,
              collapseUnchanged: { margin: 3, minSize: 8 },
            }),
        EditorView.updateListener.of((update) => {
          if (update.docChanged) options.onChange?.(update.state.doc.toString());
        }),
      ],
    }),
  });
  const load = languages[options.language];
  void load?.().then((loaded) => view.dispatch({ effects: language.reconfigure(loaded) }));

  return {
    setValue(value) {
      if (value === view.state.doc.toString()) return;
      view.dispatch({ changes: { from: 0, to: view.state.doc.length, insert: value } });
    },
    focus: () => {
      view.dispatch({ selection: { anchor: view.state.doc.length } });
      view.focus();
    },
    destroy: () => view.destroy(),
  };
}
