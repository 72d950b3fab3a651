// Icons of 16 units, drawn in the colour of the text.
import type { ReactNode } from "react";

const DRAWN = {
  overview: <path d="M2.5 13.5V9m3.7 4.5v-8m3.7 8v-6m3.6 6v-11" />,
  functions: <path d="M5.2 4.5 2 8l3.2 3.5m5.6-7L14 8l-3.2 3.5M9 3 7 13" />,
  invocations: <path d="m4 2.8 8.5 5.2L4 13.2z" />,
  deadletters: <path d="M8 5v3.6m0 2.4v.1M7 2.4 1.6 12a1.1 1.1 0 0 0 1 1.7h10.8a1.1 1.1 0 0 0 1-1.7L9 2.4a1.2 1.2 0 0 0-2 0z" />,
  workers: (
    <>
      <rect x="2" y="2.5" width="12" height="4.6" rx="1.2" />
      <rect x="2" y="8.9" width="12" height="4.6" rx="1.2" />
      <path d="M4.7 4.8h.1m-.1 6.4h.1" />
    </>
  ),
  sun: (
    <>
      <circle cx="8" cy="8" r="2.7" />
      <path d="M8 1.5v1.3m0 10.4v1.3M1.5 8h1.3m10.4 0h1.3M3.4 3.4l.9.9m7.4 7.4.9.9m0-9.2-.9.9m-7.4 7.4-.9.9" />
    </>
  ),
  moon: <path d="M13.5 9.6A5.8 5.8 0 0 1 6.4 2.5a5.8 5.8 0 1 0 7.1 7.1z" />,
  system: (
    <>
      <rect x="1.8" y="2.5" width="12.4" height="8.5" rx="1.3" />
      <path d="M5.5 13.7h5" />
    </>
  ),
  search: (
    <>
      <circle cx="7" cy="7" r="4.3" />
      <path d="m10.3 10.3 3.4 3.4" />
    </>
  ),
  plus: <path d="M8 3v10M3 8h10" />,
  play: <path d="m5 3.2 7.4 4.8L5 12.8z" />,
  copy: (
    <>
      <rect x="5.5" y="5.5" width="8" height="8" rx="1.3" />
      <path d="M10.5 5.5V3.8a1.3 1.3 0 0 0-1.3-1.3H3.8a1.3 1.3 0 0 0-1.3 1.3v5.4a1.3 1.3 0 0 0 1.3 1.3h1.7" />
    </>
  ),
  check: <path d="m3 8.5 3.4 3.3L13 4.5" />,
  download: <path d="M8 2.5v7.3m-3-3 3 3 3-3M2.8 13.3h10.4" />,
  close: <path d="m4 4 8 8m0-8-8 8" />,
  back: <path d="M9.8 3.5 5.3 8l4.5 4.5" />,
  repeat: <path d="M13 7.6A5 5 0 0 0 3.6 5.5M3 2.8v2.9h2.9M3 8.4a5 5 0 0 0 9.4 2.1m.6 2.7v-2.9h-2.9" />,
  keyboard: (
    <>
      <rect x="1.5" y="4" width="13" height="8" rx="1.3" />
      <path d="M4.3 6.7h.1m2.4 0h.1m2.4 0h.1m2.3 0h.1M5 9.5h6" />
    </>
  ),
} satisfies Record<string, ReactNode>;

export type IconName = keyof typeof DRAWN;

export function Icon({ name, size = 16 }: { name: IconName; size?: number }) {
  return (
    <svg
      className="icon"
      width={size}
      height={size}
      viewBox="0 0 16 16"
      fill="none"
      stroke="currentColor"
      strokeWidth="1.4"
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
    >
      {DRAWN[name]}
    </svg>
  );
}
