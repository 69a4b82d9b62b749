import type { Inference, ReplicaState } from "../api/types";
import { useNow } from "../hooks/useNow";
import { count, milliseconds, rate } from "../state/format";
import { Ago, Failure, Panel, StatePill } from "./Bits";

export function Replicas({ inference }: { inference: Inference }) {
  const states = [...inference.replicaStates].sort((a, b) => a.slot - b.slot);
  const failed = states.filter((one) => one.error);
  return (
    <Panel title="Replicas" className="replicas" extra={<span className="tally">{inference.replicas} wanted</span>}>
      {states.length ? <Table states={states} /> : <p className="empty">None has reported yet.</p>}
      {failed.map((one) => one.error && <Failure key={one.slot} status={one.error} what={troubleOf(one)} />)}
    </Panel>
  );
}

// One that is at work goes on answering, with the model that it has.
function troubleOf(replica: ReplicaState): string {
  const isAtWork = replica.state === "INFERENCE_STATE_RUNNING";
  if (!isAtWork) return `Replica ${replica.slot} failed.`;
  return `Replica ${replica.slot} goes on answering with version ${replica.modelVersion}.`;
}

function Table({ states }: { states: ReplicaState[] }) {
  const now = useNow();
  return (
    <div className="scroll">
      <table>
        <thead>
          <tr>
            <th scope="col">Replica</th>
            <th scope="col">State</th>
            <th scope="col">Ready</th>
            <th scope="col">Partitions</th>
            <th scope="col" className="number">Records/s</th>
            <th scope="col" className="number">Lag</th>
            <th scope="col" className="number" title="From reading a record to the commit of its answer">p50</th>
            <th scope="col" className="number">p99</th>
            <th scope="col" className="number">Answered</th>
            <th scope="col" className="number">Version</th>
            <th scope="col" className="number">Restarts</th>
            <th scope="col" className="number">Reported</th>
          </tr>
        </thead>
        <tbody>
          {states.map((one) => (
            <tr key={one.slot} data-slot={one.slot}>
              <th scope="row">{one.slot}</th>
              <td><StatePill state={one.state} /></td>
              <td>{one.ready ? "yes" : one.live ? "no" : "silent"}</td>
              <td>{one.partitions.length ? one.partitions.join(", ") : "–"}</td>
              <td className="number">{rate(Number(one.rowsPerSecond))}</td>
              <td className="number">{count(one.lag)}</td>
              <td className="number" data-cell="p50">{milliseconds(one.p50Duration)}</td>
              <td className="number" data-cell="p99">{milliseconds(one.p99Duration)}</td>
              <td className="number">
                {count(one.answeredCount)}
                {Number(one.deadLetterCount) > 0 && <span className="bad-text"> +{count(one.deadLetterCount)} dead</span>}
              </td>
              <td className="number" data-cell="version">{one.modelVersion || "–"}</td>
              <td className="number">{one.restartCount}</td>
              <td className="number"><Ago time={one.reportTime} now={now} /></td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
