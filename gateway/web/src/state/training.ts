// A training as its events tell it.
import { type Epoch, type Progress, type Result, type ResultEvent, type SplitMetrics, toNumber } from "../api/types";

export interface Run {
  id: string;
  result: Result | null;
  progress: Progress | null;
  // By number, from 1, without duplicates: those of the newest attempt for every number.
  epochs: Epoch[];
}

export interface Training {
  runs: ReadonlyMap<string, Run>;
  // The sequence number of the last event that is in here.
  sequence: number;
}

export const NOTHING: Training = { runs: new Map(), sequence: 0 };

// Takes results as a List gave them: they have what events leave out.
export function withResults(training: Training, results: Result[]): Training {
  const runs = new Map(training.runs);
  for (const result of results) {
    const run = runs.get(result.id) ?? newRun(result.id);
    runs.set(result.id, { ...run, result, progress: result.progress ?? run.progress });
  }
  return { ...training, runs };
}

// Takes events in order. One that was seen before changes nothing.
export function withEvents(training: Training, events: ResultEvent[]): Training {
  const runs = new Map(training.runs);
  const fresh = events.filter((event) => Number(event.sequence) > training.sequence);
  const epochs = new Map<string, Epoch[]>();
  for (const event of fresh) {
    const run = runs.get(event.resultId) ?? newRun(event.resultId);
    if (event.result) runs.set(run.id, { ...run, result: merged(run.result, event.result) });
    else if (event.progress) runs.set(run.id, { ...run, progress: event.progress });
    else if (event.epoch) {
      runs.set(run.id, run);
      epochs.set(run.id, [...(epochs.get(run.id) ?? []), event.epoch]);
    }
  }
  for (const [id, added] of epochs) {
    const run = runs.get(id) ?? newRun(id);
    runs.set(id, { ...run, epochs: joined(run.epochs, added) });
  }
  const last = fresh.at(-1);
  return { runs, sequence: last ? Number(last.sequence) : training.sequence };
}

// Every metric that some epoch has, `loss` first, then by how many models have it.
export function metricNames(runs: Run[]): string[] {
  const owners = new Map<string, number>();
  for (const run of runs) {
    const names = new Set(run.epochs.flatMap((epoch) => namesOf(epoch.metrics)));
    for (const name of names) owners.set(name, (owners.get(name) ?? 0) + 1);
  }
  const order = (name: string) => (name === "loss" ? -1000 : -(owners.get(name) ?? 0));
  return [...owners.keys()].sort((a, b) => order(a) - order(b) || a.localeCompare(b));
}

export type Split = "training" | "validation" | "test";
export const SPLITS: readonly Split[] = ["training", "validation", "test"];

export function valueOf(metrics: SplitMetrics | null, split: Split, name: string): number | undefined {
  const value = metrics?.splits[split]?.values[name];
  return value === undefined ? undefined : toNumber(value);
}

export function curve(run: Run, split: Split, name: string): [number, number][] {
  return run.epochs.flatMap((epoch): [number, number][] => {
    const value = valueOf(epoch.metrics, split, name);
    return value === undefined ? [] : [[epoch.number, value]];
  });
}

// The columns of a table of final metrics.
export function finalMetrics(results: Result[]): { name: string; splits: Split[] }[] {
  const names = [...new Set(results.flatMap((result) => namesOf(result.metrics)))];
  names.sort((a, b) => Number(b === "loss") - Number(a === "loss") || a.localeCompare(b));
  return names.map((name) => ({
    name,
    splits: SPLITS.filter((split) => results.some((result) => valueOf(result.metrics, split, name) !== undefined)),
  }));
}

// Whether less of a metric is better, by its name.
export const lessIsBetter = (name: string): boolean =>
  /loss|error|mae|mse|rmse|deviation|divergence|entropy|perplexity/i.test(name);

const newRun = (id: string): Run => ({ id, result: null, progress: null, epochs: [] });

const namesOf = (metrics: SplitMetrics | null): string[] =>
  Object.values(metrics?.splits ?? {}).flatMap((split) => Object.keys(split.values));

// An event has the view BASIC: what it leaves empty and a List has told stays.
function merged(before: Result | null, now: Result): Result {
  return before
    ? { ...now, stream: now.stream ?? before.stream, confusionMatrix: now.confusionMatrix ?? before.confusionMatrix }
    : now;
}

function joined(before: Epoch[], added: Epoch[]): Epoch[] {
  const byNumber = new Map(before.map((epoch) => [epoch.number, epoch]));
  for (const epoch of added) {
    const known = byNumber.get(epoch.number);
    if (!known || known.attempt <= epoch.attempt) byNumber.set(epoch.number, epoch);
  }
  return [...byNumber.values()].sort((a, b) => a.number - b.number);
}
