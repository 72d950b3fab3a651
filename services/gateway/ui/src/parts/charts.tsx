// Small plots, drawn by hand: what matters is the shape.
import { useId } from "react";

export interface Bar {
  /** Bottom to top. */
  values: number[];
  title: string;
}

const WIDTH = 600;

/** Stacked bars over time; `classes` colour the layers. */
export function Bars(props: { label: string; bars: Bar[]; classes: string[]; height?: number }) {
  const height = props.height ?? 120;
  const most = Math.max(1, ...props.bars.map((bar) => bar.values.reduce((a, b) => a + b, 0)));
  const step = WIDTH / Math.max(1, props.bars.length);
  return (
    <svg
      className="plot"
      viewBox={`0 0 ${WIDTH} ${height}`}
      preserveAspectRatio="none"
      role="img"
      aria-label={props.label}
    >
      <line className="plot-base" x1="0" x2={WIDTH} y1={height - 0.5} y2={height - 0.5} />
      {props.bars.map((bar, index) => {
        let top = height - 1;
        return (
          <g key={index}>
            <title>{bar.title}</title>
            <rect className="plot-hit" x={index * step} y="0" width={step} height={height} />
            {bar.values.map((value, layer) => {
              const size = value ? Math.max(2, (value / most) * (height - 8)) : 0;
              top -= size;
              return (
                <rect
                  key={layer}
                  className={props.classes[layer]}
                  x={index * step + step * 0.12}
                  y={top}
                  width={step * 0.76}
                  height={size}
                  rx="1"
                />
              );
            })}
          </g>
        );
      })}
    </svg>
  );
}

export interface Dot {
  /** 0 (left) to 1 (right). */
  at: number;
  value: number;
  className: string;
  title: string;
}

/** One dot an invocation, on a logarithmic scale: outliers are what one looks for. */
export function Dots(props: { label: string; dots: Dot[]; ticks: (value: number) => string }) {
  const height = 160;
  const values = props.dots.map((dot) => Math.max(0.1, dot.value));
  const low = Math.floor(Math.log10(Math.min(...values)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...values))));
  const y = (value: number) =>
    height - 8 - ((Math.log10(Math.max(0.1, value)) - low) / (high - low)) * (height - 16);
  const lines = Array.from({ length: high - low + 1 }, (_, index) => 10 ** (low + index));
  return (
    <div className="dots">
      <div className="dots-ticks" aria-hidden="true">
        {[...lines].reverse().map((value) => (
          <span key={value}>{props.ticks(value)}</span>
        ))}
      </div>
      <svg className="plot" viewBox={`0 0 ${WIDTH} ${height}`} role="img" aria-label={props.label}>
        {lines.map((value) => (
          <line key={value} className="plot-base" x1="0" x2={WIDTH} y1={y(value)} y2={y(value)} />
        ))}
        {props.dots.map((dot, index) => (
          <circle
            key={index}
            className={dot.className}
            cx={6 + dot.at * (WIDTH - 12)}
            cy={y(dot.value)}
            r="3"
          >
            <title>{dot.title}</title>
          </circle>
        ))}
      </svg>
    </div>
  );
}

export interface Range {
  name: string;
  /** The median, what 90 of 100 stay within, and 99. */
  values: [p50: number, p90: number, p99: number];
}

/** From median to 99 of 100, one below the other on a logarithmic scale, with the numbers. */
export function Ranges(props: { label: string; ranges: Range[]; ticks: (value: number) => string }) {
  const all = props.ranges.flatMap((range) => range.values).map((value) => Math.max(0.1, value));
  const low = Math.floor(Math.log10(Math.min(...all)));
  const high = Math.max(low + 1, Math.ceil(Math.log10(Math.max(...all))));
  const x = (value: number) =>
    4 + ((Math.log10(Math.max(0.1, value)) - low) / (high - low)) * (WIDTH - 8);
  return (
    <div className="scroll" tabIndex={0} role="group" aria-label={props.label}>
      <table className="plain ranges">
        <thead>
          <tr>
            <th scope="col">Phase</th>
            <td aria-hidden="true" className="ranges-plot faint small">
              <span>{props.ticks(10 ** low)}</span>
              <span>{props.ticks(10 ** high)}</span>
            </td>
            <th scope="col">p50</th>
            <th scope="col">p90</th>
            <th scope="col">p99</th>
          </tr>
        </thead>
        <tbody>
          {props.ranges.map(({ name, values: [p50, p90, p99] }) => (
            <tr key={name}>
              <th scope="row">{name}</th>
              <td aria-hidden="true">
                <svg className="plot range" viewBox={`0 0 ${WIDTH} 16`} preserveAspectRatio="none">
                  <rect className="plot-rail" x="0" y="7" width={WIDTH} height="2" />
                  <rect className="range-far" x={x(p50)} y="5" width={x(p99) - x(p50)} height="6" />
                  <rect className="range-near" x={x(p50)} y="5" width={x(p90) - x(p50)} height="6" />
                  <rect className="range-mid" x={x(p50) - 2} y="1" width="4" height="14" rx="1" />
                </svg>
              </td>
              {[p50, p90, p99].map((value, index) => (
                <td key={index} className="tabular">
                  {props.ticks(value)}
                </td>
              ))}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

/** A line without axes, for a tile. */
export function Spark(props: { values: number[]; className?: string }) {
  const id = useId();
  const height = 32;
  const most = Math.max(1e-9, ...props.values);
  const step = 100 / Math.max(1, props.values.length - 1);
  const points = props.values.map(
    (value, index) => `${(index * step).toFixed(2)},${(height - 2 - (value / most) * (height - 5)).toFixed(2)}`,
  );
  if (points.length < 2) return null;
  return (
    <svg
      className={`spark ${props.className ?? ""}`}
      viewBox={`0 0 100 ${height}`}
      preserveAspectRatio="none"
      aria-hidden="true"
    >
      <defs>
        <linearGradient id={id} x1="0" x2="0" y1="0" y2="1">
          <stop offset="0" stopColor="currentColor" stopOpacity="0.18" />
          <stop offset="1" stopColor="currentColor" stopOpacity="0" />
        </linearGradient>
      </defs>
      <polygon fill={`url(#${id})`} points={`0,${height} ${points.join(" ")} 100,${height}`} />
      <polyline
        fill="none"
        stroke="currentColor"
        strokeWidth="1.5"
        vectorEffect="non-scaling-stroke"
        strokeLinejoin="round"
        points={points.join(" ")}
      />
    </svg>
  );
}

/** How much of a whole is in use. */
export function Meter({ label, value, max }: { label: string; value: number; max: number }) {
  return (
    <span className="meter" role="meter" aria-label={label} aria-valuenow={value} aria-valuemin={0} aria-valuemax={max}>
      <span style={{ width: `${max ? Math.min(100, (value / max) * 100) : 0}%` }} />
    </span>
  );
}
