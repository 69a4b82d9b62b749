import { useEffect } from "react";
import { listConfigurations, listDeployments } from "../api/deployments";
import { listInferences } from "../api/inferences";
import type { Configuration, Deployment, Inference } from "../api/types";
import { Ago, NotLoaded, Panel, StatePill } from "../components/Bits";
import { useLoaded } from "../hooks/useLoaded";
import { useNow } from "../hooks/useNow";
import { Link } from "../router";
import { count, duration, rate } from "../state/format";
import { lagOf, rateOf } from "../state/serving";
import { hasEnded } from "../state/states";

const SHOWN = 50;
const EVERY_MS = 2_000;

interface Everything {
  deployments: Deployment[];
  inferences: Inference[];
  configurations: Configuration[];
  hasMore: boolean;
}

async function loadEverything(signal: AbortSignal): Promise<Everything> {
  const [trainings, serving, configurations] = await Promise.all([
    listDeployments(SHOWN, signal),
    listInferences(SHOWN, signal),
    listConfigurations(signal),
  ]);
  return {
    deployments: trainings.deployments,
    inferences: serving.inferences,
    configurations,
    hasMore: Boolean(trainings.nextPageToken || serving.nextPageToken),
  };
}

export function Overview() {
  const { value, error } = useLoaded("everything", loadEverything, EVERY_MS);
  useEffect(() => {
    document.title = "Headrace";
  }, []);
  if (!value) return <NotLoaded error={error} what="trainings and inferences" />;
  const names = new Map(value.configurations.map((one) => [one.id, one.name]));
  return (
    <>
      <h1 className="unseen">Overview</h1>
      {error && (
        <p className="notice" role="status">
          {error.message} What you see may be old; this page tries again by itself.
        </p>
      )}
      <Panel title="Trainings" extra={<Tally states={value.deployments} word="running" />}>
        {value.deployments.length ? <Trainings deployments={value.deployments} names={names} /> : <NoTrainings />}
      </Panel>
      <Panel title="Inferences" extra={<Tally states={value.inferences} word="serving" />}>
        {value.inferences.length ? <Inferences inferences={value.inferences} /> : <NoInferences />}
      </Panel>
      {value.hasMore && (
        <p className="notice">
          These are the newest {SHOWN}. <code>headrace deployment list</code> and <code>headrace inference list</code> have all.
        </p>
      )}
    </>
  );
}

function Tally({ states, word }: { states: (Deployment | Inference)[]; word: string }) {
  const running = states.filter((one) => !hasEnded(one.state)).length;
  return running ? <span className="tally">{running} {word}</span> : null;
}

function Trainings({ deployments, names }: { deployments: Deployment[]; names: Map<string, string> }) {
  const now = useNow();
  return (
    <div className="scroll">
      <table className="rows">
        <thead>
          <tr>
            <th scope="col">Training</th>
            <th scope="col">State</th>
            <th scope="col" className="number">Models</th>
            <th scope="col" className="number">Took</th>
            <th scope="col" className="number">Created</th>
          </tr>
        </thead>
        <tbody>
          {deployments.map((one) => (
            <tr key={one.id}>
              <th scope="row">
                <Link href={`/deployments/${one.id}`}>
                  <span className="id">{one.id}</span> {names.get(one.configurationId) ?? `configuration ${one.configurationId}`}
                </Link>
                {one.description && <span className="aside">{one.description}</span>}
              </th>
              <td><StatePill state={one.state} /></td>
              <td className="number">{one.resultIds.length}</td>
              <td className="number">{took(one, now)}</td>
              <td className="number"><Ago time={one.createTime} now={now} /></td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function took(deployment: Deployment, now: number): string {
  if (!deployment.startTime) return "–";
  const end = deployment.endTime ? Date.parse(deployment.endTime) : now;
  return duration((end - Date.parse(deployment.startTime)) / 1000);
}

function Inferences({ inferences }: { inferences: Inference[] }) {
  const now = useNow();
  return (
    <div className="scroll">
      <table className="rows">
        <thead>
          <tr>
            <th scope="col">Inference</th>
            <th scope="col">State</th>
            <th scope="col">Topics</th>
            <th scope="col" className="number">Replicas</th>
            <th scope="col" className="number">Records/s</th>
            <th scope="col" className="number">Lag</th>
            <th scope="col" className="number">Created</th>
          </tr>
        </thead>
        <tbody>
          {inferences.map((one) => (
            <tr key={one.id}>
              <th scope="row">
                <Link href={`/inferences/${one.id}`}>
                  <span className="id">{one.id}</span> {one.name || `${one.modelName} ${one.modelVersion}`}
                </Link>
                <span className="aside">{one.modelName} version {one.modelVersion}</span>
              </th>
              <td><StatePill state={one.state} /></td>
              <td className="topics">{one.inputTopic} <span aria-label="to">→</span> {one.outputTopic}</td>
              <td className="number">{one.replicas}</td>
              <td className="number">{hasEnded(one.state) ? "–" : rate(rateOf(one))}</td>
              <td className="number">{hasEnded(one.state) ? "–" : count(lagOf(one))}</td>
              <td className="number"><Ago time={one.createTime} now={now} /></td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function NoTrainings() {
  return (
    <div className="empty">
      <p>Nothing has been trained yet. The whole story, on real data:</p>
      <pre>headrace demo</pre>
      <p>Or with a model of your own:</p>
      <pre>{`headrace model create digits --framework tensorflow --code model.py
headrace configuration create digits digits
headrace train digits --fit "epochs=20"`}</pre>
    </div>
  );
}

function NoInferences() {
  return (
    <div className="empty">
      <p>No model answers a topic. Once a training has finished:</p>
      <pre>headrace infer RESULT --input-topic questions --output-topic answers</pre>
    </div>
  );
}
