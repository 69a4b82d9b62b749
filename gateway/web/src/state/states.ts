// What the states of trainings and inferences mean to a reader.
import type { InferenceState, State } from "../api/types";

export type Tone = "idle" | "waiting" | "active" | "good" | "bad";

const ENDED: ReadonlySet<string> = new Set([
  "STATE_FINISHED",
  "STATE_FAILED",
  "STATE_CANCELLED",
  "INFERENCE_STATE_STOPPED",
  "INFERENCE_STATE_FAILED",
]);

const TONES: Partial<Record<State | InferenceState, Tone>> = {
  STATE_CREATED: "waiting",
  STATE_STARTING: "waiting",
  STATE_WAITING: "waiting",
  STATE_FINISHED: "good",
  STATE_FAILED: "bad",
  STATE_CANCELLING: "waiting",
  STATE_CANCELLED: "idle",
  INFERENCE_STATE_STARTING: "waiting",
  INFERENCE_STATE_RUNNING: "active",
  INFERENCE_STATE_DEGRADED: "bad",
  INFERENCE_STATE_STOPPING: "waiting",
  INFERENCE_STATE_STOPPED: "idle",
  INFERENCE_STATE_FAILED: "bad",
};

export const hasEnded = (state: State | InferenceState): boolean => ENDED.has(state);

export const toneOf = (state: State | InferenceState): Tone => TONES[state] ?? "active";

// STATE_FINISHED → finished
export const wordOf = (state: State | InferenceState): string =>
  state.replace(/^(INFERENCE_)?STATE_/, "").toLowerCase();
