import { useCallback, useEffect, useRef, useState } from "react";
import { ApiError } from "../api/client";

export interface Loaded<T> {
  value: T | null;
  // Why the last try failed; the value before it stays.
  error: ApiError | null;
  // Asks again soon; many calls in a moment are one.
  reload: () => void;
}

const TOGETHER_MS = 150;
const RETRY_MS = 2_000;

// Loads a value, loads it again on `reload` and every `everyMs` (0: never), and keeps trying while the server is away.
export function useLoaded<T>(key: string, load: (signal: AbortSignal) => Promise<T>, everyMs = 0): Loaded<T> {
  const [state, setState] = useState<{ key: string; value: T | null; error: ApiError | null }>(() => ({
    key,
    value: null,
    error: null,
  }));
  const latest = useRef(load);
  latest.current = load;
  const schedule = useRef<(ms: number) => void>(() => {});

  useEffect(() => {
    const stop = new AbortController();
    let timer = 0;
    const again = (ms: number) => {
      clearTimeout(timer);
      timer = window.setTimeout(turn, ms);
    };
    const turn = async () => {
      if (document.hidden && everyMs) return again(everyMs);
      try {
        const value = await latest.current(stop.signal);
        if (stop.signal.aborted) return;
        setState({ key, value, error: null });
        if (everyMs) again(everyMs);
      } catch (error) {
        if (stop.signal.aborted) return;
        const known = error instanceof ApiError ? error : new ApiError({ code: 13, message: String(error) });
        setState((before) => ({ key, value: before.key === key ? before.value : null, error: known }));
        if (known.passes) again(RETRY_MS);
      }
    };
    schedule.current = again;
    void turn();
    return () => {
      stop.abort();
      clearTimeout(timer);
    };
  }, [key, everyMs]);

  const reload = useCallback(() => schedule.current(TOGETHER_MS), []);
  return { value: state.key === key ? state.value : null, error: state.error, reload };
}
