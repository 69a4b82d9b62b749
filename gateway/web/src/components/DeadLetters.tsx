// The records without an answer, and a button that sends them again.
import { useEffect, useState } from "react";
import { listDeadLetters, replayDeadLetters } from "../api/inferences";
import type { DeadLetter, Inference } from "../api/types";
import { useLoaded } from "../hooks/useLoaded";
import { useNow } from "../hooks/useNow";
import { count } from "../state/format";
import { deadLettersOf } from "../state/serving";
import { hasEnded } from "../state/states";
import { Ago, Panel } from "./Bits";
import { ConfirmButton } from "./ConfirmButton";

const SHOWN = 20;
const TEXT = 80;

export function DeadLetters({ inference }: { inference: Inference }) {
  const { id } = inference;
  const letters = useLoaded(`dead letters ${id}`, (signal) => listDeadLetters(id, SHOWN, signal));
  const [said, setSaid] = useState("");
  const dead = deadLettersOf(inference);
  const { reload } = letters;
  useEffect(reload, [dead, reload]);

  const replay = async () => {
    setSaid("");
    const sent = await replayDeadLetters(id);
    setSaid(sent ? `${count(sent)} were sent to ${inference.inputTopic} again.` : "Each was sent again before.");
  };
  const shown = letters.value?.deadLetters ?? [];
  if (!shown.length) return null;
  return (
    <Panel
      title="Dead letters"
      className="letters"
      extra={
        <>
          <span className="id">newest first{letters.value?.nextPageToken ? `, the last ${SHOWN}` : ""}</span>
          {said && <span className="id" role="status">{said}</span>}
          {!hasEnded(inference.state) && (
            <ConfirmButton label="Send again" question="Really send all of them again, each once?" act={replay} />
          )}
        </>
      }
    >
      <Table letters={shown} />
    </Panel>
  );
}

function Table({ letters }: { letters: DeadLetter[] }) {
  const now = useNow();
  return (
    <div className="scroll tall">
      <table>
        <thead>
          <tr>
            <th scope="col">When</th>
            <th scope="col">Question</th>
            <th scope="col">Reason</th>
            <th scope="col">Model</th>
            <th scope="col">Record</th>
          </tr>
        </thead>
        <tbody>
          {letters.map((one) => (
            <tr key={`${one.partition}/${one.offset}`}>
              <td><Ago time={one.time} now={now} /></td>
              <td><code>{one.source ? `${one.source.topic}/${one.source.partition}/${one.source.offset}` : "–"}</code></td>
              <td>
                <code>{one.reason}</code>
                <div className="aside">{one.message}</div>
              </td>
              <td>{one.model || "–"}</td>
              <td title={one.value}><code>{recordOf(one)}</code></td>
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

// As far as it could be decoded.
function recordOf(letter: DeadLetter): string {
  const text = letter.sample === null ? letter.value : JSON.stringify(letter.sample);
  return text.length > TEXT ? `${text.slice(0, TEXT)}…` : text || "empty";
}
