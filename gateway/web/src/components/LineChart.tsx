// Curves over a common axis, drawn as SVG: with a legend of its owner's, a crosshair, and the values under it.
import { type KeyboardEvent, type PointerEvent, useMemo, useState } from "react";
import { useWidth } from "../hooks/useWidth";
import { clockStep, linearScale, logScale, rounded, type Scale, tickText } from "./scale";

export interface Series {
  id: string;
  label: string;
  // An index into the palette, from 0.
  color: number;
  dashed?: boolean;
  // By x, which rises. Values that are not finite leave a gap.
  points: [number, number][];
}

interface Props {
  series: Series[];
  // What the chart shows, for those who do not see it.
  label: string;
  xName: string;
  formatX: (x: number) => string;
  formatY: (y: number) => string;
  height?: number;
  log?: boolean;
  // The vertical axis begins at 0.
  fromZero?: boolean;
  // x has whole numbers only.
  wholeX?: boolean;
  // x is a time in milliseconds.
  timeX?: boolean;
}

const LEFT = 56;
const RIGHT = 14;
const TOP = 10;
const BOTTOM = 26;

export function LineChart(props: Props) {
  const { series, label, height = 280 } = props;
  const [box, width] = useWidth<HTMLDivElement>();
  const [hovered, setHovered] = useState<number | null>(null);
  const xs = useMemo(() => allX(series), [series]);
  const scales = useMemo(() => scalesFor(props, width, height, xs), [props, width, height, xs]);
  const x = hovered === null ? null : nearest(xs, hovered);

  const point = (event: PointerEvent<SVGSVGElement>) => {
    const left = event.currentTarget.getBoundingClientRect().left;
    setHovered(scales.x.toValue(event.clientX - left));
  };
  const step = (event: KeyboardEvent) => {
    const by = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (!by || !xs.length) return;
    event.preventDefault();
    const at = x === null ? xs.length - 1 : xs.indexOf(x) + by;
    setHovered(xs[Math.max(0, Math.min(xs.length - 1, at))] ?? null);
  };
  return (
    <div className="chart" ref={box} style={{ height }}>
      {width > 0 && (
        <svg
          width={width}
          height={height}
          role="img"
          aria-label={label}
          tabIndex={0}
          onPointerMove={point}
          onPointerLeave={() => setHovered(null)}
          onBlur={() => setHovered(null)}
          onKeyDown={step}
        >
          <Axes {...props} scales={scales} width={width} height={height} />
          {series.map((one) => (
            <Curve key={one.id} series={one} scales={scales} width={width} />
          ))}
          {x !== null && <Crosshair series={series} x={x} scales={scales} height={height} />}
        </svg>
      )}
      {x !== null && <Values {...props} x={x} left={scales.x.toPixel(x)} width={width} />}
    </div>
  );
}

interface Scales {
  x: Scale;
  y: Scale;
}

function scalesFor(props: Props, width: number, height: number, xs: number[]): Scales {
  const values = props.series.flatMap((one) => one.points.map(([, y]) => y)).filter(Number.isFinite);
  const xTicks = Math.max(2, Math.floor(width / 90));
  const [first = 0, last = 1] = [xs[0], xs.at(-1)];
  // A single point stands in the middle.
  const [xLow, xHigh] = first === last ? [first - 1, last + 1] : [first, last];
  const x = linearScale(xLow, xHigh, LEFT, Math.max(LEFT + 1, width - RIGHT), xTicks, props.timeX ? clockStep : undefined);
  return { x, y: yScale(props, values, height) };
}

function yScale({ log, fromZero }: Props, values: number[], height: number): Scale {
  const yTicks = Math.max(2, Math.floor(height / 56));
  const positive = log ? values.filter((value) => value > 0) : [];
  if (positive.length) {
    const [low, high] = [Math.min(...positive), Math.max(...positive)];
    return logScale(low === high ? low / 2 : low, low === high ? high * 2 : high, height - BOTTOM, TOP, yTicks);
  }
  const low = fromZero || !values.length ? 0 : extreme(values, Math.min);
  const high = values.length ? extreme(values, Math.max) : 1;
  const [from, to] = rounded(low, fromZero && high === 0 ? 1 : high, yTicks);
  return linearScale(from, to, height - BOTTOM, TOP, yTicks);
}

// Math.min(...values) fails for very many values.
const extreme = (values: number[], of: (a: number, b: number) => number): number =>
  values.reduce((a, b) => of(a, b), values[0] ?? 0);

function Axes({ scales, width, height, xName, formatX, wholeX }: Props & { scales: Scales; width: number; height: number }) {
  const bottom = height - BOTTOM;
  const xTicks = scales.x.ticks.filter((tick) => !wholeX || Number.isInteger(tick));
  return (
    <g className="axes" aria-hidden="true">
      {scales.y.ticks.map((tick) => (
        <g key={tick} transform={`translate(0 ${scales.y.toPixel(tick)})`}>
          <line x1={LEFT} x2={width - RIGHT} />
          <text x={LEFT - 8} dy="0.32em" textAnchor="end">{tickText(tick, scales.y.ticks)}</text>
        </g>
      ))}
      {xTicks.map((tick) => (
        <text key={tick} {...placed(scales.x.toPixel(tick), width, formatX(tick))} y={bottom + 17}>{formatX(tick)}</text>
      ))}
      <text className="name" x={LEFT - 8} y={bottom + 17} textAnchor="end">{xName}</text>
    </g>
  );
}

// Under its tick, but not beyond the edge. A digit is about 7 pixels wide.
function placed(x: number, width: number, text: string): { x: number; textAnchor: "middle" | "end" } {
  const half = text.length * 3.5;
  return x + half > width - 4 ? { x: width - 4, textAnchor: "end" } : { x, textAnchor: "middle" };
}

function Curve({ series, scales, width }: { series: Series; scales: Scales; width: number }) {
  const d = useMemo(() => pathOf(thinned(series.points, width), scales), [series.points, scales, width]);
  const last = series.points.at(-1);
  return (
    <g className={`curve color-${series.color % 8}`} data-series={series.id} data-points={series.points.length}>
      <path d={d} data-dashed={series.dashed || undefined} />
      {last && Number.isFinite(last[1]) && (
        <circle cx={scales.x.toPixel(last[0])} cy={scales.y.toPixel(last[1])} r={series.dashed ? 2.5 : 3} />
      )}
    </g>
  );
}

function pathOf(points: [number, number][], { x, y }: Scales): string {
  let d = "";
  let isDown = false;
  for (const [px, py] of points) {
    const top = y.toPixel(py);
    if (Number.isFinite(py) && Number.isFinite(top)) {
      d += `${isDown ? "L" : "M"}${x.toPixel(px).toFixed(1)} ${top.toFixed(1)}`;
      isDown = true;
    } else isDown = false;
  }
  return d;
}

// At most some points per pixel: the lowest and the highest of each bucket, so that no spike is lost.
function thinned(points: [number, number][], width: number): [number, number][] {
  const size = Math.ceil(points.length / Math.max(1, width));
  if (size < 3) return points;
  const kept: [number, number][] = [];
  for (let start = 0; start < points.length; start += size) {
    const bucket = points.slice(start, start + size);
    const low = bucket.reduce((a, b) => (b[1] < a[1] ? b : a));
    const high = bucket.reduce((a, b) => (b[1] > a[1] ? b : a));
    kept.push(...(low[0] <= high[0] ? [low, high] : [high, low]));
  }
  return kept;
}

function Crosshair({ series, x, scales, height }: { series: Series[]; x: number; scales: Scales; height: number }) {
  const left = scales.x.toPixel(x);
  return (
    <g className="crosshair" aria-hidden="true">
      <line x1={left} x2={left} y1={TOP} y2={height - BOTTOM} />
      {series.map((one) => {
        const y = at(one, x);
        if (y === undefined || !Number.isFinite(scales.y.toPixel(y))) return null;
        return <circle key={one.id} className={`color-${one.color % 8}`} cx={left} cy={scales.y.toPixel(y)} r={4} />;
      })}
    </g>
  );
}

function Values({ series, x, left, width, xName, formatX, formatY }: Props & { x: number; left: number; width: number }) {
  const known = series.flatMap((one) => {
    const y = at(one, x);
    return y === undefined ? [] : [{ one, y }];
  });
  const side = left > width / 2 ? { right: width - left + 12 } : { left: left + 12 };
  return (
    <div className="values" style={side} role="status">
      <p>{xName} {formatX(x)}</p>
      {known.map(({ one, y }) => (
        <p key={one.id}>
          <Swatch color={one.color} dashed={one.dashed ?? false} /> {one.label} <b>{formatY(y)}</b>
        </p>
      ))}
    </div>
  );
}

export function Swatch({ color, dashed = false }: { color: number; dashed?: boolean }) {
  return (
    <svg className={`swatch color-${color % 8}`} width="18" height="8" aria-hidden="true">
      <line x1="1" x2="17" y1="4" y2="4" data-dashed={dashed || undefined} />
    </svg>
  );
}

function at(series: Series, x: number): number | undefined {
  return series.points.find(([px]) => px === x)?.[1];
}

function allX(series: Series[]): number[] {
  const xs = new Set(series.flatMap((one) => one.points.map(([x]) => x)));
  return [...xs].sort((a, b) => a - b);
}

function nearest(xs: number[], wanted: number): number | null {
  let best: number | null = null;
  for (const x of xs) if (best === null || Math.abs(x - wanted) < Math.abs(best - wanted)) best = x;
  return best;
}
