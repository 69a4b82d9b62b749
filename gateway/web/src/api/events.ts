// Server-sent events that survive whatever happens in between: a restart, a sleeping laptop, a slow proxy.
//
// Not EventSource: it gives up for good at the first answer that is not 200, hides why, and cannot be paused.
import { ApiError, errorOf } from "./client";
import type { Status } from "./types";

export type Liveness = "connecting" | "live" | "reconnecting" | "paused" | "ended" | "failed";

export interface Follower<T> {
  // A connection is open; a stream whose events have no ids begins again.
  onOpen?: () => void;
  // Events that arrived together, in order, each once.
  onMessages: (messages: T[]) => void;
  onLiveness: (liveness: Liveness, error?: ApiError) => void;
  // Asked when the stream ended in order: whether that was all. If not, it is resumed.
  isComplete: () => boolean;
}

// The server says something every 15 s.
const SILENCE_MS = 40_000;
// A hidden page gives its connection back: browsers have only six to one server.
const HIDDEN_MS = 30_000;
const FIRST_PAUSE_MS = 300;
const LONGEST_PAUSE_MS = 5_000;

type Outcome = "complete" | "again";

// Follows a stream until it is over or the returned function is called.
export function follow<T>(path: string, follower: Follower<T>): () => void {
  const stop = new AbortController();
  void run(path, follower, stop.signal);
  return () => stop.abort();
}

async function run<T>(path: string, follower: Follower<T>, stop: AbortSignal): Promise<void> {
  let lastId = "";
  let failures = 0;
  follower.onLiveness("connecting");
  while (!stop.aborted) {
    const connection = new Connection<T>(path, lastId, stop, {
      ...follower,
      onOpen: () => {
        failures = 0;
        follower.onLiveness("live");
        follower.onOpen?.();
      },
    });
    try {
      const outcome = await connection.read();
      if (stop.aborted) return;
      if (outcome === "complete" || follower.isComplete()) return follower.onLiveness("ended");
      await pause(FIRST_PAUSE_MS, stop);
    } catch (error) {
      if (stop.aborted) return;
      if (error instanceof ApiError && !error.passes) return follower.onLiveness("failed", error);
      follower.onLiveness(document.hidden ? "paused" : "reconnecting");
      await pause(Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** failures), stop);
      failures += 1;
    }
    lastId = connection.lastId;
    await untilVisible(stop);
  }
}

class Connection<T> {
  lastId: string;
  private readonly abort = new AbortController();
  private silence = 0;

  constructor(
    private readonly path: string,
    lastId: string,
    stop: AbortSignal,
    private readonly follower: Follower<T>,
  ) {
    this.lastId = lastId;
    stop.addEventListener("abort", () => this.abort.abort(), { once: true, signal: this.abort.signal });
  }

  async read(): Promise<Outcome> {
    const stopWatching = whenLongHidden(() => this.abort.abort());
    try {
      return await this.readResponse(await this.open());
    } finally {
      stopWatching();
      clearTimeout(this.silence);
      this.abort.abort();
    }
  }

  private async open(): Promise<Response> {
    this.expectData();
    const headers: Record<string, string> = { accept: "text/event-stream" };
    if (this.lastId) headers["last-event-id"] = this.lastId;
    const response = await fetch(this.path, { headers, signal: this.abort.signal, cache: "no-store" });
    if (!response.ok) throw await errorOf(response);
    return response;
  }

  private async readResponse(response: Response): Promise<Outcome> {
    if (response.status === 204 || !response.body) return "complete";
    this.follower.onOpen?.();
    const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) throw new Error("the connection was cut");
      this.expectData();
      const blocks = (rest + value).split("\n\n");
      rest = blocks.pop() ?? "";
      if (this.take(blocks)) return "again";
    }
  }

  // Hands the events of whole blocks on; true after the event that ends the stream.
  private take(blocks: string[]): boolean {
    const messages: T[] = [];
    let ended = false;
    let failure: ApiError | undefined;
    for (const block of blocks) {
      const event = parse(block);
      if (event.name === "end") ended = true;
      else if (event.name === "failure") failure = failureOf(event.data);
      else if (event.data) messages.push(JSON.parse(event.data) as T);
      if (event.id) this.lastId = event.id;
    }
    if (messages.length) this.follower.onMessages(messages);
    if (failure) throw failure;
    return ended;
  }

  private expectData(): void {
    clearTimeout(this.silence);
    this.silence = window.setTimeout(() => this.abort.abort(), SILENCE_MS);
  }
}

interface Block {
  name: string;
  id: string;
  data: string;
}

function parse(block: string): Block {
  const event: Block = { name: "", id: "", data: "" };
  for (const line of block.split("\n")) {
    const colon = line.indexOf(":");
    const value = line.slice(colon + 1).replace(/^ /, "");
    if (line.startsWith("event:")) event.name = value;
    else if (line.startsWith("id:")) event.id = value;
    else if (line.startsWith("data:")) event.data += value;
  }
  return event;
}

function failureOf(data: string): ApiError {
  const { error, resume } = JSON.parse(data) as { error: Status; resume: boolean };
  return new ApiError(error, resume ? 503 : 400);
}

// Resolves after a time with some jitter, or at once when the network or the page comes back.
function pause(ms: number, stop: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = new AbortController();
    const finish = () => {
      clearTimeout(timer);
      done.abort();
      resolve();
    };
    const timer = window.setTimeout(finish, ms * (0.75 + Math.random() / 2));
    window.addEventListener("online", finish, { signal: done.signal });
    stop.addEventListener("abort", finish, { signal: done.signal });
  });
}

function untilVisible(stop: AbortSignal): Promise<void> {
  if (!document.hidden) return Promise.resolve();
  return new Promise((resolve) => {
    const done = new AbortController();
    const finish = () => {
      if (document.hidden && !stop.aborted) return;
      done.abort();
      resolve();
    };
    document.addEventListener("visibilitychange", finish, { signal: done.signal });
    stop.addEventListener("abort", finish, { signal: done.signal });
  });
}

function whenLongHidden(act: () => void): () => void {
  let timer = 0;
  const watch = () => {
    clearTimeout(timer);
    if (document.hidden) timer = window.setTimeout(act, HIDDEN_MS);
  };
  document.addEventListener("visibilitychange", watch);
  watch();
  return () => {
    clearTimeout(timer);
    document.removeEventListener("visibilitychange", watch);
  };
}
