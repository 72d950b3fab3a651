// Numbers, durations and moments as people read them.

/** Milliseconds of a protobuf duration such as "1.5s"; undefined where there is none. */
export function ms(duration: string | undefined): number | undefined {
  return duration === undefined ? undefined : Number.parseFloat(duration) * 1000;
}

/** "0.4 ms", "32 ms", "1.25 s", "2 min 5 s". */
export function duration(value: number | undefined): string {
  if (value === undefined || Number.isNaN(value)) return "–";
  if (value < 1000) return `${Number(value.toFixed(value < 10 ? 1 : 0))} ms`;
  if (value < 60_000) return `${Number((value / 1000).toFixed(value < 10_000 ? 2 : 1))} s`;
  const seconds = Math.round(value / 1000);
  if (seconds < 3600) return two(Math.floor(seconds / 60), "min", seconds % 60, "s");
  const minutes = Math.floor(seconds / 60);
  if (seconds < 86_400) return two(Math.floor(minutes / 60), "h", minutes % 60, "min");
  const hours = Math.floor(minutes / 60);
  return two(Math.floor(hours / 24), "d", hours % 24, "h");
}

function two(large: number, unit: string, small: number, smaller: string): string {
  return small ? `${large} ${unit} ${small} ${smaller}` : `${large} ${unit}`;
}

/** "512 B", "1.2 KiB", "10 MiB". */
export function bytes(value: number | string | undefined): string {
  if (value === undefined) return "–";
  let size = Number(value);
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (size < 1024 || unit === "GiB")
      return `${unit === "B" || size >= 100 ? Math.round(size) : Number(size.toFixed(1))} ${unit}`;
    size /= 1024;
  }
  return "";
}

/** "just now", "12 s ago", "5 min ago", "3 h ago", "2 d ago"; later ones "in 5 s". */
export function ago(moment: string | undefined, now: number): string {
  if (!moment) return "–";
  const seconds = Math.round((now - Date.parse(moment)) / 1000);
  const size = Math.abs(seconds);
  if (size < 2) return "just now";
  const text =
    size < 60
      ? `${size} s`
      : size < 3600
        ? `${Math.floor(size / 60)} min`
        : size < 86_400
          ? `${Math.floor(size / 3600)} h`
          : `${Math.floor(size / 86_400)} d`;
  return seconds > 0 ? `${text} ago` : `in ${text}`;
}

const FULL = new Intl.DateTimeFormat("en-GB", {
  dateStyle: "medium",
  timeStyle: "medium",
});

/** "25 Nov 2026, 18:00:17", in the viewer's time zone. */
export function moment(value: string | undefined): string {
  return value ? FULL.format(new Date(value)) : "–";
}

/** "18:00:17.123", in the viewer's time zone. */
export function clock(value: string | undefined): string {
  if (!value) return "";
  const at = new Date(value);
  const two = (n: number) => String(n).padStart(2, "0");
  const millis = String(at.getMilliseconds()).padStart(3, "0");
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}.${millis}`;
}

const COUNT = new Intl.NumberFormat("en-US");

/** "12,345". */
export function count(value: number): string {
  return COUNT.format(value);
}

/** "12.3 %". */
export function percent(part: number): string {
  const value = part * 100;
  return `${value === 0 ? "0" : value < 10 ? value.toFixed(1) : Math.round(value)} %`;
}

/** The end of an id, enough to tell it from its neighbours. */
export function short(id: string): string {
  return id.length > 16 ? `${id.slice(0, id.indexOf("-") + 1)}…${id.slice(-8)}` : id;
}
