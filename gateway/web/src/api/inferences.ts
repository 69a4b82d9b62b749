// Every call about inferences.
import { get, post } from "./client";
import type { Inference } from "./types";

export const getInference = (id: string, signal?: AbortSignal) => get<Inference>(`/v1/inferences/${id}`, signal);

export const listInferences = (pageSize: number, signal?: AbortSignal) =>
  get<{ inferences: Inference[]; nextPageToken: string }>(`/v1/inferences?pageSize=${pageSize}`, signal);

export const stopInference = (id: string) => post<Inference>(`/v1/inferences/${id}:stop`);

export const watchInference = (id: string) => `/v1/inferences/${id}:watch`;
export const watchInferenceLogs = (id: string) => `/v1/inferences/${id}:watchLogs`;
