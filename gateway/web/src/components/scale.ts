// Scales and ticks of charts.

export interface Scale {
  toPixel: (value: number) => number;
  toValue: (pixel: number) => number;
  ticks: number[];
}

export function linearScale(low: number, high: number, from: number, to: number, tickCount: number): Scale {
  const span = high - low || 1;
  return {
    toPixel: (value) => from + ((value - low) / span) * (to - from),
    toValue: (pixel) => low + ((pixel - from) / (to - from)) * span,
    ticks: ticksBetween(low, low + span, tickCount),
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
  const step = stepFor(high - low, tickCount);
  return [Math.floor(low / step) * step, Math.ceil(high / step) * step];
}

function ticksBetween(low: number, high: number, tickCount: number): number[] {
  const step = stepFor(high - low, tickCount);
  const first = Math.ceil(low / step - 1e-9);
  const last = Math.floor(high / step + 1e-9);
  // Rounded to the step's own digits: 0.30000000000000004 is nobody's tick.
  const digits = Math.max(0, -Math.floor(Math.log10(step)) + 1);
  return Array.from({ length: last - first + 1 }, (_, index) => Number(((first + index) * step).toFixed(digits)));
}

function stepFor(span: number, tickCount: number): number {
  const rough = span / Math.max(1, tickCount);
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = rough / power;
  return power * (unit <= 1 ? 1 : unit <= 2 ? 2 : unit <= 5 ? 5 : 10);
}
