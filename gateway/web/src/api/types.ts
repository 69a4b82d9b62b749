// The API's messages as the server sends them, from the generated schema.
import type { components } from "./schema";

type Schemas = components["schemas"];

// The server leaves no field out: unset messages are null. Only members of a choice may be missing (see below).
type Filled<T> = T extends readonly (infer U)[]
  ? Filled<U>[]
  : T extends object
    ? { -readonly [K in keyof T]-?: Filled<T[K]> }
    : T;
type Choice<T, K extends keyof T> = Filled<Omit<T, K>> & { [P in K]?: Filled<NonNullable<T[P]>> };

export type State = Schemas["State"];
export type InferenceState = Schemas["InferenceState"];
export type Status = Filled<Schemas["Status"]>;
export type Metrics = Filled<Schemas["Metrics"]>;
export type SplitMetrics = Filled<Schemas["SplitMetrics"]>;
export type Progress = Filled<Schemas["Progress"]>;
export type Epoch = Filled<Schemas["Epoch"]>;
export type Artifact = Filled<Schemas["Artifact"]>;
export type Stream = Filled<Schemas["Stream"]>;
export type RefusedAnnouncement = Filled<Schemas["RefusedAnnouncement"]>;
export type Configuration = Filled<Schemas["Configuration"]>;
export type Deployment = Filled<Schemas["Deployment"]>;
export type Result = Filled<Schemas["Result"]>;
export type Inference = Filled<Schemas["Inference"]>;
export type ReplicaState = Filled<Schemas["ReplicaState"]>;
export type DeadLetter = Filled<Schemas["DeadLetter"]>;
export type Prediction = Filled<Schemas["Prediction"]>;
export type LogLines = Filled<Schemas["WatchLogsResponse"]>;
export type ResultEvent = Choice<Schemas["ResultEvent"], "epoch" | "progress" | "result">;
export type PredictionEvent = Choice<Schemas["PredictionEvent"], "prediction" | "inference">;

// A double: JSON has no NaN and no infinities, so they come as texts.
export type Double = Metrics["values"][string];

export function toNumber(value: Double): number {
  return Number(value);
}
