// Numbers, sizes and times as people read them.
const COUNT = new Intl.NumberFormat("en-US");

export const count = (value: number | string): string => COUNT.format(Number(value));

// A metric: four significant digits, and no false precision.
export function metric(value: number): string {
  if (Number.isNaN(value)) return "NaN";
  if (!Number.isFinite(value)) return value > 0 ? "∞" : "−∞";
  const size = Math.abs(value);
  if (size !== 0 && (size < 0.0001 || size >= 1e6)) return value.toExponential(2).replace("-", "−");
  const digits = size >= 1000 ? 0 : size >= 100 ? 1 : size >= 10 ? 2 : size >= 1 ? 3 : 4;
  return value.toFixed(digits).replace("-", "−");
}

export function rate(perSecond: number): string {
  if (perSecond >= 1000) return count(Math.round(perSecond));
  if (perSecond >= 10 || perSecond === 0) return perSecond.toFixed(0);
  return perSecond.toFixed(1);
}

export function bytes(size: number | string): string {
  let value = Number(size);
  for (const unit of ["B", "KiB", "MiB", "GiB"]) {
    if (value < 1024) return `${unit === "B" ? value : value.toFixed(1)} ${unit}`;
    value /= 1024;
  }
  return `${value.toFixed(1)} TiB`;
}

// 95 → 1 min 35 s
export function duration(seconds: number): string {
  if (seconds < 10) return `${Math.max(0, seconds).toFixed(1)} s`;
  if (seconds < 60) return `${Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.floor(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${Math.floor(hours / 24)} days`;
}

// protobuf's Duration as text ("12.5s") in seconds.
export const secondsOf = (text: string | null): number => (text ? Number.parseFloat(text) : 0);

// protobuf's Duration as milliseconds; nothing where nothing was answered lately.
export function milliseconds(text: string | null): string {
  const value = secondsOf(text) * 1000;
  if (!value) return "–";
  return `${value >= 10 ? Math.round(value) : value.toFixed(1)} ms`;
}

export function ago(time: string, now: number): string {
  const seconds = (now - Date.parse(time)) / 1000;
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 48 * 3600) return `${Math.floor(seconds / 3600)} h ago`;
  return `${Math.floor(seconds / 86400)} days ago`;
}

export const clock = (time: string | number): string => new Date(time).toLocaleTimeString("en-GB");

export const words = (constant: string, prefix: string): string =>
  constant.replace(prefix, "").toLowerCase().replaceAll("_", " ");
