import { useEffect, useRef, useState } from "react";
import type { ApiError } from "../api/client";
import { type Follower, follow, type Liveness } from "../api/events";

export interface StreamStatus {
  liveness: Liveness;
  error: ApiError | undefined;
}

type Handlers<T> = Omit<Follower<T>, "onLiveness">;

// Follows the stream at a path while the component is shown; null: not yet.
export function useStream<T>(path: string | null, handlers: Handlers<T>): StreamStatus {
  const latest = useRef(handlers);
  latest.current = handlers;
  const [status, setStatus] = useState<StreamStatus>({ liveness: "connecting", error: undefined });
  useEffect(() => {
    if (path === null) return;
    return follow<T>(path, {
      onOpen: () => latest.current.onOpen?.(),
      onMessages: (messages) => latest.current.onMessages(messages),
      isComplete: () => latest.current.isComplete(),
      onLiveness: (liveness, error) => setStatus({ liveness, error }),
    });
  }, [path]);
  return status;
}
