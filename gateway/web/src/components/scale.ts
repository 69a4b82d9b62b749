// Scales and ticks of charts.

export interface Scale {
  toPixel: (value: number) => number;
  toValue: (pixel: number) => number;
  ticks: number[];
}

// `step`: the distance of ticks for a span; by default a round decimal number.
export function linearScale(
  low: number,
  high: number,
  from: number,
  to: number,
  tickCount: number,
  step: (span: number, tickCount: number) => number = decimalStep,
): Scale {
  const span = high - low || 1;
  return {
    toPixel: (value) => from + ((value - low) / span) * (to - from),
    toValue: (pixel) => low + ((pixel - from) / (to - from)) * span,
    ticks: ticksBetween(low, low + span, step(span, tickCount)),
  };
}

// `low` and `high` are positive.
export function logScale(low: number, high: number, from: number, to: number, tickCount: number): Scale {
  const inner = linearScale(Math.log10(low), Math.log10(high), from, to, tickCount);
  const decades: number[] = [];
  for (let power = Math.floor(Math.log10(low)); power <= Math.ceil(Math.log10(high)); power += 1) {
    const steps = Math.log10(high / low) > 3 ? [1] : [1, 2, 5];
    decades.push(...steps.map((step) => step * 10 ** power));
  }
  return {
    toPixel: (value) => inner.toPixel(Math.log10(value)),
    toValue: (pixel) => 10 ** inner.toValue(pixel),
    ticks: decades.filter((tick) => tick >= low * 0.999 && tick <= high * 1.001),
  };
}

// A range that begins and ends at round numbers and has room around the values.
export function rounded(low: number, high: number, tickCount: number): [number, number] {
  if (low === high) {
    const room = Math.abs(low) || 1;
    return low >= 0 && low - room / 2 < 0 ? [0, high + room / 2] : [low - room / 2, high + room / 2];
  }
  const step = decimalStep(high - low, tickCount);
  return [Math.floor(low / step) * step, Math.ceil(high / step) * step];
}

// A tick with as many decimals as its neighbours need, the same for all of them on a linear scale.
export function tickText(tick: number, ticks: number[]): string {
  const size = Math.abs(tick);
  if (size >= 1e6 || (size !== 0 && size < 1e-4)) return tick.toExponential(0).replace("e+", "e").replace("-", "−");
  const isLinear = ticks.length > 1 && ticks.every((one) => Math.abs(one) < 1e6);
  const spread = Math.max(...ticks.map(Math.abs)) / Math.min(...ticks.filter((one) => one !== 0).map(Math.abs));
  const decimals = isLinear && spread < 100 ? Math.max(...ticks.map(decimalsOf)) : decimalsOf(tick);
  return tick.toLocaleString("en-US", { minimumFractionDigits: decimals, maximumFractionDigits: 6 }).replace("-", "−");
}

const decimalsOf = (value: number): number => Math.min(6, (String(value).split(".")[1] ?? "").length);

function ticksBetween(low: number, high: number, step: number): number[] {
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  // Rounded to the step's own digits: 0.30000000000000004 is nobody's tick.
  const digits = Math.max(0, -Math.floor(Math.log10(step)) + 1);
  return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toFixed(digits)));
}

function decimalStep(span: number, tickCount: number): number {
  const rough = span / Math.max(1, tickCount);
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = rough / power;
  return power * (unit <= 1 ? 1 : unit <= 2 ? 2 : unit <= 5 ? 5 : 10);
}

const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600];

// For times in milliseconds: seconds and minutes as a clock has them.
export function clockStep(span: number, tickCount: number): number {
  const rough = span / 1000 / Math.max(1, tickCount);
  return 1000 * (SECONDS.find((seconds) => seconds >= rough) ?? 3600 * Math.ceil(rough / 3600));
}
