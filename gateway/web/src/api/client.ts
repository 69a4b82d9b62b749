// Calls of the REST API, and its errors.
import type { Status } from "./types";

interface ErrorInfo {
  "@type": string;
  reason?: string;
  metadata?: Record<string, string>;
  fieldViolations?: { field: string; description: string }[];
}

// google.rpc.Code
export const NOT_FOUND = 5;
export const UNAVAILABLE = 14;

export class ApiError extends Error {
  readonly code: number;
  readonly reason: string;
  readonly httpStatus: number;

  constructor(status: Pick<Status, "code" | "message"> & { details?: unknown }, httpStatus = 0) {
    super(status.message);
    this.code = status.code;
    this.reason = reasonOf(status);
    this.httpStatus = httpStatus;
  }

  // Whether the same request may succeed later.
  get passes(): boolean {
    return this.httpStatus === 0 || this.httpStatus >= 500 || [408, 409, 429, 499].includes(this.httpStatus);
  }
}

// The reason of an error, such as DATA_EXPIRED; empty where it has none.
export function reasonOf(status: { details?: unknown }): string {
  return detail(status, "ErrorInfo")?.reason ?? "";
}

// The facts of an error by name.
export function factsOf(status: { details?: unknown }): Record<string, string> {
  return detail(status, "ErrorInfo")?.metadata ?? {};
}

function detail(status: { details?: unknown }, type: string): ErrorInfo | undefined {
  const details = Array.isArray(status.details) ? (status.details as ErrorInfo[]) : [];
  return details.find((one) => one["@type"].endsWith(`google.rpc.${type}`));
}

export async function get<T>(path: string, signal?: AbortSignal): Promise<T> {
  return call<T>(path, { signal: signal ?? null });
}

export async function post<T>(path: string, body: unknown = {}): Promise<T> {
  return call<T>(path, {
    method: "POST",
    headers: { "content-type": "application/json" },
    body: JSON.stringify(body),
  });
}

// The error that a response tells of, whoever wrote it.
export async function errorOf(response: Response): Promise<ApiError> {
  try {
    return new ApiError((await response.json()) as Status, response.status);
  } catch {
    return new ApiError({ code: UNAVAILABLE, message: `The server answered ${response.status}.` }, response.status);
  }
}

async function call<T>(path: string, init: RequestInit): Promise<T> {
  let response: Response;
  try {
    response = await fetch(path, init);
  } catch (error) {
    if (error instanceof DOMException && error.name === "AbortError") throw error;
    throw new ApiError({ code: UNAVAILABLE, message: "The gateway does not answer." });
  }
  if (!response.ok) throw await errorOf(response);
  return (await response.json()) as T;
}
