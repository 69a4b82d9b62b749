// The last answers of an inference.
import type { Prediction } from "../api/types";
import { toNumber } from "../api/types";
import { clock, metric } from "../state/format";
import { keyOf } from "../state/serving";
import { Panel } from "./Bits";

// More values than these are no picture any more.
const BARS = 64;

export function Answers({ answers, hasEnded }: { answers: Prediction[]; hasEnded: boolean }) {
  return (
    <Panel title="Last answers" className="answers" extra={answers.length > 0 && <span className="id">newest first</span>}>
      {answers.length ? (
        <div className="scroll tall">
          <table>
            <thead>
              <tr>
                <th scope="col">Time</th>
                <th scope="col">Question</th>
                <th scope="col">Answer</th>
                <th scope="col">Model</th>
              </tr>
            </thead>
            <tbody>
              {answers.map((answer) => (
                <tr key={keyOf(answer)} data-source={keyOf(answer)}>
                  <td>{answer.time ? clock(answer.time) : "–"}</td>
                  <td>
                    <code>{keyOf(answer)}</code>
                    {answer.inputSummary && <div className="aside">{answer.inputSummary}</div>}
                  </td>
                  <td><Values values={answer.values.map(toNumber)} label={answer.label} /></td>
                  <td data-cell="model">{answer.model || "–"}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      ) : (
        <p className="empty">
          {hasEnded ? "It has stopped." : "None since this page is open. Answers appear here as they are committed."}
        </p>
      )}
    </Panel>
  );
}

function Values({ values, label }: { values: number[]; label: string }) {
  const first = values[0];
  if (first === undefined) return <>–</>;
  if (values.length === 1) return <b>{metric(first)}</b>;
  const best = values.reduce((at, value, index) => (value > (values[at] ?? -Infinity) ? index : at), 0);
  const top = values[best] ?? 0;
  return (
    <span className="vector" title={values.slice(0, 200).map(metric).join("  ")}>
      {values.length <= BARS && <Bars values={values} best={best} />}
      <span>
        <b>{label || best}</b> <span className="aside">{metric(top)}</span>
      </span>
    </span>
  );
}

function Bars({ values, best }: { values: number[]; best: number }) {
  const low = Math.min(0, ...values);
  const span = Math.max(...values) - low || 1;
  return (
    <svg className="bars" width={values.length * 5} height="18" aria-hidden="true">
      {values.map((value, index) => {
        const height = Math.max(1, ((value - low) / span) * 18);
        return (
          <rect
            key={index}
            x={index * 5}
            y={18 - height}
            width="4"
            height={Number.isFinite(height) ? height : 1}
            data-best={index === best || undefined}
          />
        );
      })}
    </svg>
  );
}
