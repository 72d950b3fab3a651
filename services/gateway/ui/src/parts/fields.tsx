// Form fields with their words and what is wrong with them.
import { useId, type InputHTMLAttributes, type ReactNode } from "react";
import type { FieldViolation } from "../api/client";
import { Icon } from "./icons";

interface FieldProps {
  label: string;
  hint?: ReactNode;
  /** Violations of the whole form; those of `field` are shown here. */
  violations?: FieldViolation[];
  field?: string;
}

function useMessages({ violations, field, hint }: FieldProps) {
  const id = useId();
  const wrong = violations?.filter(
    (each) => field && (each.field === field || each.field.startsWith(`${field}[`) || each.field.startsWith(`${field}.`)),
  );
  const message = wrong?.map((each) => each.description).join("; ");
  return { id, message, describedBy: message || hint ? `${id}-about` : undefined };
}

type InputProps = FieldProps & Omit<InputHTMLAttributes<HTMLInputElement>, "id">;

export function TextField({ label, hint, violations, field, className, ...input }: InputProps) {
  const { id, message, describedBy } = useMessages({
    label,
    hint,
    ...(violations && { violations }),
    ...(field && { field }),
  });
  return (
    <div className={`field ${className ?? ""}`}>
      <label htmlFor={id}>{label}</label>
      <input
        id={id}
        aria-describedby={describedBy}
        aria-invalid={message ? true : undefined}
        spellCheck={false}
        autoComplete="off"
        {...input}
      />
      {(message || hint) && (
        <p id={describedBy} className={message ? "field-wrong" : "field-hint"}>
          {message || hint}
        </p>
      )}
    </div>
  );
}

export type Pair = [name: string, value: string];

/** Names and values: environment variables, labels. */
export function PairsField(
  props: FieldProps & { pairs: Pair[]; onChange: (pairs: Pair[]) => void; noun: string },
) {
  const { id, message, describedBy } = useMessages(props);
  const change = (index: number, pair: Pair) =>
    props.onChange(props.pairs.map((old, at) => (at === index ? pair : old)));
  return (
    <div className="field pairs" role="group" aria-labelledby={id} aria-describedby={describedBy}>
      <span id={id} className="field-label">
        {props.label}
      </span>
      {props.pairs.map(([name, value], index) => (
        <div key={index} className="pair">
          <input
            aria-label={`Name of ${props.noun} ${index + 1}`}
            placeholder="name"
            spellCheck={false}
            value={name}
            onChange={(event) => change(index, [event.target.value, value])}
          />
          <input
            aria-label={`Value of ${props.noun} ${index + 1}`}
            placeholder="value"
            spellCheck={false}
            value={value}
            onChange={(event) => change(index, [name, event.target.value])}
          />
          <button
            type="button"
            className="button ghost icon-only"
            aria-label={`Remove ${props.noun} ${name || index + 1}`}
            onClick={() => props.onChange(props.pairs.filter((_, at) => at !== index))}
          >
            <Icon name="close" />
          </button>
        </div>
      ))}
      <button
        type="button"
        className="button small"
        onClick={() => props.onChange([...props.pairs, ["", ""]])}
      >
        <Icon name="plus" /> Add {props.noun}
      </button>
      {(message || props.hint) && (
        <p id={describedBy} className={message ? "field-wrong" : "field-hint"}>
          {message || props.hint}
        </p>
      )}
    </div>
  );
}

export const toPairs = (map: Record<string, string>): Pair[] => Object.entries(map).sort();
export const fromPairs = (pairs: Pair[]): Record<string, string> =>
  Object.fromEntries(pairs.filter(([name]) => name));
