// An inference as its events tell it, while somebody looks.
import type { Inference, Prediction, PredictionEvent } from "../api/types";
import { toNumber } from "../api/types";

export interface Moment {
  // Milliseconds, by this computer's clock.
  time: number;
  rate: number;
  lag: number;
}

export interface Serving {
  inference: Inference | null;
  history: Moment[];
  // Newest first, each question once.
  answers: Prediction[];
}

export const NOTHING: Serving = { inference: null, history: [], answers: [] };

const MOMENTS = 600;
const ANSWERS = 50;

export function withEvents(serving: Serving, events: PredictionEvent[], now: number): Serving {
  let { inference, history } = serving;
  const added: Prediction[] = [];
  for (const event of events) {
    if (event.prediction) added.push(event.prediction);
    if (event.inference) {
      inference = event.inference;
      history = withMoment(history, { time: now, rate: rateOf(inference), lag: lagOf(inference) });
    }
  }
  return { inference, history, answers: added.length ? withAnswers(serving.answers, added) : serving.answers };
}

export const rateOf = (inference: Inference): number =>
  inference.replicaStates.reduce((sum, replica) => sum + toNumber(replica.rowsPerSecond), 0);

export const lagOf = (inference: Inference): number =>
  inference.replicaStates.reduce((sum, replica) => sum + Number(replica.lag), 0);

export const answeredOf = (inference: Inference): number =>
  inference.replicaStates.reduce((sum, replica) => sum + Number(replica.answeredCount), 0);

export const deadLettersOf = (inference: Inference): number =>
  inference.replicaStates.reduce((sum, replica) => sum + Number(replica.deadLetterCount), 0);

export const keyOf = (answer: Prediction): string =>
  answer.source ? `${answer.source.topic}/${answer.source.partition}/${answer.source.offset}` : "";

// Moments within half a second are one: a burst of events is no history.
function withMoment(history: Moment[], moment: Moment): Moment[] {
  const last = history.at(-1);
  if (last && moment.time - last.time < 500) return [...history.slice(0, -1), { ...moment, time: last.time }];
  return [...history.slice(-MOMENTS + 1), moment];
}

function withAnswers(before: Prediction[], added: Prediction[]): Prediction[] {
  const seen = new Set(before.map(keyOf));
  const fresh = added.filter((answer) => {
    const key = keyOf(answer);
    const isNew = !key || !seen.has(key);
    seen.add(key);
    return isNew;
  });
  return [...fresh.reverse(), ...before].slice(0, ANSWERS);
}
