// Every call about inferences.
import { get, post } from "./client";
import type { DeadLetter, Inference } from "./types";

interface Replayed {
  replayedCount: string;
  done: boolean;
  ends: Record<string, string>;
}

export const getInference = (id: string, signal?: AbortSignal) => get<Inference>(`/v1/inferences/${id}`, signal);

export const listInferences = (pageSize: number, signal?: AbortSignal) =>
  get<{ inferences: Inference[]; nextPageToken: string }>(`/v1/inferences?pageSize=${pageSize}`, signal);

export const stopInference = (id: string) => post<Inference>(`/v1/inferences/${id}:stop`);

export const listDeadLetters = (id: string, pageSize: number, signal?: AbortSignal) =>
  get<{ deadLetters: DeadLetter[]; nextPageToken: string }>(
    `/v1/inferences/${id}/deadLetters?pageSize=${pageSize}`,
    signal,
  );

// All that stand there now, in as many calls as it takes; how many were sent.
export async function replayDeadLetters(id: string): Promise<number> {
  let sent = 0;
  let ends: Record<string, string> = {};
  for (;;) {
    const answer = await post<Replayed>(`/v1/inferences/${id}/deadLetters:replay`, { ends });
    sent += Number(answer.replayedCount);
    if (answer.done) return sent;
    ends = answer.ends;
  }
}

export const watchInference = (id: string) => `/v1/inferences/${id}:watch`;
export const watchInferenceLogs = (id: string) => `/v1/inferences/${id}:watchLogs`;
