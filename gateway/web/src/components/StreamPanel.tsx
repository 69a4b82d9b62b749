// What the models learn from: the exact offset ranges.
import type { Deployment, Stream } from "../api/types";
import { count, words } from "../state/format";
import type { Run } from "../state/training";
import { Panel } from "./Bits";

export function StreamPanel({ runs, deployment }: { runs: Run[]; deployment: Deployment }) {
  const stream = runs.flatMap((run) => run.result?.stream ?? [])[0];
  return (
    <Panel title="Stream" className="stream" extra={stream && <span className="id">stream {stream.id}</span>}>
      {stream ? <Ranges stream={stream} /> : <p className="empty">{deployment.streamId === "0" ? "None has arrived yet." : `Stream ${deployment.streamId}, not read yet.`}</p>}
    </Panel>
  );
}

function Ranges({ stream }: { stream: Stream }) {
  const config = Object.entries(stream.inputConfig).filter(([, value]) => value.length <= 60).sort();
  return (
    <>
      {stream.description && <p>{stream.description}</p>}
      <div className="scroll">
        <table>
          <thead>
            <tr>
              <th scope="col">Topic</th>
              <th scope="col" className="number">Partition</th>
              <th scope="col" className="number">From</th>
              <th scope="col" className="number">To (exclusive)</th>
              <th scope="col" className="number">Offsets</th>
            </tr>
          </thead>
          <tbody>
            {stream.ranges.map((range) => (
              <tr key={`${range.topic} ${range.partition} ${range.start}`}>
                <th scope="row">{range.topic}</th>
                <td className="number">{range.partition}</td>
                <td className="number">{range.start}</td>
                <td className="number">{range.end}</td>
                <td className="number">{count(Number(range.end) - Number(range.start))}</td>
              </tr>
            ))}
          </tbody>
        </table>
      </div>
      <dl className="facts">
        <div>
          <dt>records</dt>
          <dd>{count(stream.recordCount)}</dd>
        </div>
        <div>
          <dt>validation</dt>
          <dd>{Math.round(Number(stream.validationRate) * 100)} %</dd>
        </div>
        <div>
          <dt>test</dt>
          <dd>{Math.round(Number(stream.testRate) * 100)} %</dd>
        </div>
        <div>
          <dt>format</dt>
          <dd>{words(stream.inputFormat, "DATA_FORMAT_").toUpperCase()}</dd>
        </div>
        {config.map(([name, value]) => (
          <div key={name}>
            <dt>{name.replaceAll("_", " ")}</dt>
            <dd>{value || "–"}</dd>
          </div>
        ))}
      </dl>
      {stream.rangeString && <code className="range-string">{stream.rangeString}</code>}
    </>
  );
}
