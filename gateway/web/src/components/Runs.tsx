// One row per model of a training: where it is, and how it does.
import type { Deployment, Inference, Progress } from "../api/types";
import { Link } from "../router";
import { count, duration, metric, rate, secondsOf } from "../state/format";
import { hasEnded, wordOf } from "../state/states";
import { type Run, valueOf } from "../state/training";
import { Bar, Failure, Panel, StatePill } from "./Bits";
import { Swatch } from "./LineChart";

interface Props {
  runs: Run[];
  deployment: Deployment;
  inferences: Inference[];
}

export function Runs({ runs, deployment, inferences }: Props) {
  return (
    <Panel title={runs.length === 1 ? "Model" : "Models"} className="runs">
      <ul>
        {runs.map((run, index) => (
          <li key={run.id} data-result={run.id}>
            <RunRow run={run} color={index} hasStream={hasStream(deployment)} served={inferences.filter((one) => one.resultId === run.id)} />
          </li>
        ))}
      </ul>
      {deployment.state === "STATE_WAITING" && <HowToSend deploymentId={deployment.id} />}
    </Panel>
  );
}

function hasStream(deployment: Deployment): boolean {
  return deployment.streamId !== "0" || deployment.fromResultId !== "0";
}

interface RowProps {
  run: Run;
  color: number;
  hasStream: boolean;
  served: Inference[];
}

function RunRow({ run, color, hasStream, served }: RowProps) {
  const { result } = run;
  const state = result?.state ?? "STATE_UNSPECIFIED";
  return (
    <>
      <div className="run">
        <span className="name">
          <Swatch color={color} /> {result?.modelName || `result ${run.id}`}
          {result && result.version > 0 && <span className="id">version {result.version}</span>}
        </span>
        <StatePill state={state} />
        <Advance run={run} hasStream={hasStream} />
        <span className="latest">{latest(run)}</span>
        <span className="aside">
          {result && result.attempt > 1 && <span className="attempt">attempt {result.attempt}</span>}
          {served.map((one) => (
            <Link key={one.id} href={`/inferences/${one.id}`}>serves {one.inputTopic} →</Link>
          ))}
        </span>
      </div>
      {result?.error && (
        <Failure status={result.error} what={hasEnded(state) ? "It failed." : "Its last attempt failed; it is tried again."} />
      )}
    </>
  );
}

function Advance({ run, hasStream }: { run: Run; hasStream: boolean }) {
  const state = run.result?.state ?? "STATE_UNSPECIFIED";
  const { progress } = run;
  if (state === "STATE_CREATED" && !hasStream) return <span className="advance">{WAITS.STATE_WAITING}</span>;
  if (state === "STATE_FINISHED") return <span className="advance">{epochsDone(run)}</span>;
  if (hasEnded(state)) return <span className="advance">{run.epochs.length ? `after ${epochsDone(run)}` : ""}</span>;
  if (!progress || progress.phase !== state) return <span className="advance">{WAITS[state] ?? ""}</span>;
  const { part, text } = measure(progress, run);
  return (
    <span className="advance" data-phase={state}>
      <Bar part={part} label={`${run.result?.modelName ?? ""}: ${wordOf(state)}`} />
      <span>{text}</span>
    </span>
  );
}

const WAITS: Record<string, string> = {
  STATE_CREATED: "waits for a free processor",
  STATE_STARTING: "its process starts",
  STATE_WAITING: "waits for its stream",
};

function measure(progress: Progress, run: Run): { part: number | null; text: string } {
  const speed = Number(progress.rowsPerSecond);
  const perSecond = (speed > 0 ? ` · ${rate(speed)}/s` : "") + left(progress);
  if (progress.phase === "STATE_READING") {
    if (progress.waitsFor) return { part: 0, text: `waits: ${progress.waitsFor}` };
    const [read, total] = [Number(progress.recordsRead), Number(progress.recordsTotal)];
    if (total && read >= total) return { part: 1, text: `all ${count(total)} records read; the worker gets ready` };
    const text = total ? `${count(read)} of ${count(total)} records` : `${count(read)} records`;
    return { part: total ? read / total : null, text: text + perSecond };
  }
  if (progress.phase === "STATE_TRAINING" && progress.epochs > 0) {
    const done = Math.max(progress.epoch, run.epochs.at(-1)?.number ?? 0);
    const steps = Number(progress.steps);
    const within = steps && progress.epoch >= done ? Number(progress.step) / steps : 0;
    const part = Math.min(1, (done + Math.min(1, within)) / progress.epochs);
    return { part, text: `epoch ${count(done)} of ${count(progress.epochs)}${perSecond}` };
  }
  return { part: null, text: "" };
}

function left(progress: Progress): string {
  return progress.timeLeft ? ` · ${duration(secondsOf(progress.timeLeft))} left` : "";
}

function epochsDone(run: Run): string {
  const number = run.epochs.at(-1)?.number ?? 0;
  return number ? `${count(number)} ${number === 1 ? "epoch" : "epochs"}` : "";
}

// The newest loss and the first other metric, of validation where there is one.
function latest(run: Run) {
  const metrics = run.epochs.at(-1)?.metrics ?? null;
  const split = metrics?.splits.validation ? "validation" : "training";
  const names = Object.keys(metrics?.splits[split]?.values ?? {});
  const shown = [...names.filter((name) => name === "loss"), ...names.filter((name) => name !== "loss")].slice(0, 2);
  return shown.map((name) => (
    <span key={name} title={`${split}, newest epoch`}>
      {name} <b>{metric(valueOf(metrics, split, name) ?? Number.NaN)}</b>
    </span>
  ));
}

function HowToSend({ deploymentId }: { deploymentId: string }) {
  return (
    <div className="empty how">
      <p>It trains as soon as a stream is announced for it:</p>
      <pre>headrace send FILE --topic TOPIC --deployment {deploymentId}</pre>
    </div>
  );
}
