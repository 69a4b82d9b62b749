import type { Inference, ReplicaState } from "../api/types";
import { useNow } from "../hooks/useNow";
import { count, rate } from "../state/format";
import { Ago, Failure, Panel, StatePill } from "./Bits";

export function Replicas({ inference }: { inference: Inference }) {
  const states = [...inference.replicaStates].sort((a, b) => a.slot - b.slot);
  const failed = states.filter((one) => one.error);
  return (
    <Panel title="Replicas" className="replicas" extra={<span className="tally">{inference.replicas} wanted</span>}>
      {states.length ? <Table states={states} /> : <p className="empty">None has reported yet.</p>}
      {failed.map((one) => one.error && <Failure key={one.slot} status={one.error} what={`Replica ${one.slot} failed.`} />)}
    </Panel>
  );
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
            <th scope="col">Partitions</th>
            <th scope="col" className="number">Records/s</th>
            <th scope="col" className="number">Lag</th>
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
              <td>{one.partitions.length ? one.partitions.join(", ") : "–"}</td>
              <td className="number">{rate(Number(one.rowsPerSecond))}</td>
              <td className="number">{count(one.lag)}</td>
              <td className="number">
                {count(one.answeredCount)}
                {Number(one.deadLetterCount) > 0 && <span className="bad-text"> +{count(one.deadLetterCount)} dead</span>}
              </td>
              <td className="number">{one.modelVersion || "–"}</td>
              <td className="number">{one.restartCount}</td>
              <td className="number"><Ago time={one.reportTime} now={now} /></td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
