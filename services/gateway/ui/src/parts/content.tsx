// A payload or a result: JSON of the record, or what is kept beside it.
import { useMemo } from "react";
import { beginning, bytesOf } from "../api/client";
import * as format from "../format";
import { useLive } from "../live";
import { Icon } from "./icons";
import { Text } from "./lines";
import { Failure, Loading } from "./notice";

const PREVIEW_BYTES = 256 * 1024;

interface Props {
  id: string;
  what: "payload" | "result";
  /** Its content type; none is the type of what came as JSON. */
  type: string;
  /** The JSON value; undefined where the record does not show it. */
  value: unknown;
  /** Of what is kept beside the record. */
  size?: string | undefined;
}

const isJson = (type: string) => !type || /^(application|text)\/([^;]+\+)?json\b/i.test(type);
const isText = (type: string) => isJson(type) || /^text\//i.test(type);

export function Content(props: Props) {
  const { id, what, type, value } = props;
  const text = useMemo(
    () => (value === undefined ? undefined : JSON.stringify(value, null, 2)),
    [value],
  );
  const name = `${id}-${what}${isJson(type) ? ".json" : isText(type) ? ".txt" : ""}`;
  const label = what === "payload" ? "Payload" : "Result";
  if (text !== undefined)
    return <Text label={label} text={text} href={bytesOf(id, what)} name={name} />;
  if (isText(type)) return <Beginning {...props} label={label} name={name} />;
  return (
    <div className="quiet">
      <p className="faint">
        Bytes of the type “{type}”{props.size && `, ${format.bytes(props.size)} of them`}.
      </p>
      <p>
        <a className="button" href={bytesOf(id, what)} download={name}>
          <Icon name="download" /> Download {what}
        </a>
      </p>
    </div>
  );
}

/** As much of it as can be read, and where the whole is. */
function Beginning({ id, what, size, label, name }: Props & { label: string; name: string }) {
  const href = bytesOf(id, what);
  const { data, error } = useLive(
    href,
    (signal) => beginning(href, PREVIEW_BYTES, signal),
    0,
  );
  if (!data) return error ? <Failure error={error} /> : <Loading rows={2} />;
  return (
    <>
      <Text label={label} text={data.text} href={href} name={name} />
      {data.more && (
        <p className="faint small quiet">
          The first {format.bytes(PREVIEW_BYTES)}
          {size && ` of ${format.bytes(size)}`}.{" "}
          <a href={href} download={name}>
            Download all of it
          </a>
        </p>
      )}
    </>
  );
}
