import { useEffect, useMemo, useRef, useState } from "react";
import {
  cancelDeployment,
  getConfiguration,
  getDeployment,
  listResultsOf,
  watchDeployment,
  watchDeploymentLogs,
} from "../api/deployments";
import { listInferences } from "../api/inferences";
import type { Configuration, Deployment, Inference, RefusedAnnouncement, Result, ResultEvent } from "../api/types";
import { Ago, Failure, LiveMark, NotLoaded, StatePill } from "../components/Bits";
import { ConfirmButton } from "../components/ConfirmButton";
import { Curves } from "../components/Curves";
import { Logs } from "../components/Logs";
import { MetricsTable } from "../components/MetricsTable";
import { Runs } from "../components/Runs";
import { StreamPanel } from "../components/StreamPanel";
import { useLoaded } from "../hooks/useLoaded";
import { useNow } from "../hooks/useNow";
import { useStream } from "../hooks/useStream";
import { duration, words } from "../state/format";
import { hasEnded } from "../state/states";
import { NOTHING, type Run, type Training, withEvents, withResults } from "../state/training";

interface Facts {
  deployment: Deployment;
  results: Result[];
  configuration: Configuration | null;
  inferences: Inference[];
}

async function loadFacts(id: string, signal: AbortSignal): Promise<Facts> {
  const [deployment, results] = await Promise.all([getDeployment(id, signal), listResultsOf(id, signal)]);
  const [configuration, serving] = await Promise.all([
    getConfiguration(deployment.configurationId, signal).catch(() => null),
    listInferences(1000, signal).catch(() => ({ inferences: [] })),
  ]);
  const ids = new Set(deployment.resultIds);
  return { deployment, results, configuration, inferences: serving.inferences.filter((one) => ids.has(one.resultId)) };
}

export function DeploymentPage({ id }: { id: string }) {
  const facts = useLoaded(`deployment ${id}`, (signal) => loadFacts(id, signal));
  const [training, change] = useTraining(facts.value);
  const { liveness, error } = useStream<ResultEvent>(facts.value ? watchDeployment(id) : null, {
    onMessages: (events) => {
      change((before) => withEvents(before, events));
      // An event tells a state, not what the state brought: artifacts, versions, why the whole failed or waits.
      if (events.some((event) => event.result || event.queue || event.refusedAnnouncement)) facts.reload();
    },
    isComplete: () => [...training.current.runs.values()].every((run) => run.result && hasEnded(run.result.state)),
  });
  const name = facts.value?.configuration?.name;
  useEffect(() => {
    document.title = `Training ${id}${name ? ` · ${name}` : ""} · Headrace`;
  }, [id, name]);

  if (!facts.value) return <NotLoaded error={facts.error} what={`training ${id}`} />;
  const { deployment, inferences } = facts.value;
  const runs = inOrder(training.current, deployment);
  return (
    <>
      <Head deployment={deployment} name={name} liveness={<LiveMark liveness={liveness} />} />
      {error && <p className="notice" role="alert">{error.message}</p>}
      {deployment.error && !runs.some((run) => run.result?.error) && (
        <Failure status={deployment.error} what="The training failed." />
      )}
      {deployment.queueMessage && <p className="notice">{deployment.queueMessage}</p>}
      {deployment.refusedAnnouncement?.error && (
        <Failure
          status={deployment.refusedAnnouncement.error}
          what={`An announcement for it was refused (${placeOf(deployment.refusedAnnouncement)}); it goes on waiting for its stream.`}
        />
      )}
      <Runs runs={runs} deployment={deployment} inferences={inferences} />
      <Curves runs={runs} />
      <div className="columns">
        <MetricsTable runs={runs} />
        <StreamPanel runs={runs} deployment={deployment} />
      </div>
      <Logs
        path={watchDeploymentLogs(id)}
        isComplete={() => hasEnded(facts.value?.deployment.state ?? "STATE_UNSPECIFIED")}
        empty={hasEnded(deployment.state) ? "Its processes wrote nothing." : "No lines yet."}
        nameOf={(workload) => nameOfWorkload(workload, runs)}
      />
    </>
  );
}

function placeOf({ source }: RefusedAnnouncement): string {
  return source ? `${source.topic}/${source.partition}/${source.offset}` : "";
}

// What is known of the training: changed by events as they come, and by results as they are listed. The ref is always
// the newest, also between two renderings.
function useTraining(facts: Facts | null) {
  const training = useRef<Training>(NOTHING);
  const [, render] = useState<Training>(NOTHING);
  const change = (by: (before: Training) => Training) => {
    training.current = by(training.current);
    render(training.current);
  };
  const results = facts?.results;
  useMemo(() => {
    if (results) training.current = withResults(training.current, results);
  }, [results]);
  return [training, change] as const;
}

// In the order of the configuration, which is that of the deployment's results.
function inOrder(training: Training, deployment: Deployment): Run[] {
  return deployment.resultIds.flatMap((id) => training.runs.get(id) ?? []);
}

function nameOfWorkload(workload: string, runs: Run[]): string {
  const [, resultId, attempt] = /^train-(\d+)-a(\d+)$/.exec(workload) ?? [];
  const model = runs.find((run) => run.id === resultId)?.result?.modelName;
  if (!model) return workload;
  return attempt === "1" ? model : `${model} (attempt ${attempt})`;
}

interface HeadProps {
  deployment: Deployment;
  name: string | undefined;
  liveness: React.ReactNode;
}

function Head({ deployment, name, liveness }: HeadProps) {
  const now = useNow();
  const end = deployment.endTime ? Date.parse(deployment.endTime) : now;
  const { settings } = deployment;
  return (
    <div className="head">
      <div className="title">
        <h1>
          {name ?? "Training"} <span className="id">training {deployment.id}</span>
        </h1>
        <StatePill state={deployment.state} />
        {liveness}
        {!hasEnded(deployment.state) && deployment.state !== "STATE_CANCELLING" && (
          <ConfirmButton
            label="Cancel"
            question="Really cancel this training?"
            act={() => cancelDeployment(deployment.id)}
          />
        )}
      </div>
      {deployment.description && <p>{deployment.description}</p>}
      <dl className="facts">
        <div>
          <dt>created</dt>
          <dd><Ago time={deployment.createTime} now={now} /></dd>
        </div>
        {deployment.startTime && (
          <div>
            <dt>{deployment.endTime ? "took" : "running for"}</dt>
            <dd>{duration((end - Date.parse(deployment.startTime)) / 1000)}</dd>
          </div>
        )}
        <div>
          <dt>batch size</dt>
          <dd>{settings?.batchSize || 32}</dd>
        </div>
        {settings?.seed ? (
          <div>
            <dt>seed</dt>
            <dd>{settings.seed}</dd>
          </div>
        ) : null}
        <div>
          <dt>split</dt>
          <dd>{settings && settings.split !== "SPLIT_UNSPECIFIED" ? words(settings.split, "SPLIT_") : "shuffled"}</dd>
        </div>
        {settings?.tensorflow?.fitArgs && (
          <div>
            <dt>fit (Keras)</dt>
            <dd><code>{settings.tensorflow.fitArgs}</code></dd>
          </div>
        )}
        {settings?.pytorch?.fitArgs && (
          <div>
            <dt>fit (PyTorch)</dt>
            <dd><code>{settings.pytorch.fitArgs}</code></dd>
          </div>
        )}
      </dl>
    </div>
  );
}
