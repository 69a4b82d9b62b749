// Every call about trainings: deployments, their configuration and their results.
import { get, post } from "./client";
import type { Artifact, Configuration, Deployment, Result } from "./types";

export const getDeployment = (id: string, signal?: AbortSignal) => get<Deployment>(`/v1/deployments/${id}`, signal);

export const listDeployments = (pageSize: number, signal?: AbortSignal) =>
  get<{ deployments: Deployment[]; nextPageToken: string }>(`/v1/deployments?pageSize=${pageSize}`, signal);

export const cancelDeployment = (id: string) => post<Deployment>(`/v1/deployments/${id}:cancel`);

export const getConfiguration = (id: string, signal?: AbortSignal) =>
  get<Configuration>(`/v1/configurations/${id}`, signal);

export async function listConfigurations(signal?: AbortSignal): Promise<Configuration[]> {
  const answer = await get<{ configurations: Configuration[] }>("/v1/configurations?pageSize=1000", signal);
  return answer.configurations;
}

export async function listResultsOf(deploymentId: string, signal?: AbortSignal): Promise<Result[]> {
  const answer = await get<{ results: Result[] }>(`/v1/results?deploymentId=${deploymentId}&pageSize=1000`, signal);
  return answer.results;
}

export const watchDeployment = (id: string) => `/v1/deployments/${id}:watch`;
export const watchDeploymentLogs = (id: string) => `/v1/deployments/${id}:watchLogs`;

/** Every file as one zip, with a README.md that says how to load each. */
export const downloadAllOf = (result: Result) => `/v1/results/${result.id}:download`;

export const downloadOf = (result: Result, artifact: Artifact) =>
  `/v1/results/${result.id}/artifacts/${encodeURIComponent(artifact.name)}:download`;
