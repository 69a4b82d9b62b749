import { useEffect, useLayoutEffect, useRef, useState } from "react";
import type { LogLines } from "../api/types";
import { useStream } from "../hooks/useStream";
import { type Readable, readable } from "../state/logline";
import { LiveMark, Panel } from "./Bits";

interface Line extends Readable {
  // Counts up while the page is open.
  key: number;
  workload: string;
}

// Older lines are left out; `headrace deployment logs` has them all.
const KEPT = 2000;
interface Props {
  path: string;
  isComplete: () => boolean;
  // What to show while there is no line.
  empty: string;
  // A readable name for the name of a process.
  nameOf: (workload: string) => string;
}

export function Logs({ path, isComplete, empty, nameOf }: Props) {
  const [lines, setLines] = useState<Line[]>([]);
  const [chosen, setChosen] = useState("");
  const isFresh = useRef(false);
  const nextKey = useRef(0);
  const { liveness, error } = useStream<LogLines>(path, {
    // The stream has no ids: it begins with what is stored, which replaces what is shown.
    onOpen: () => {
      isFresh.current = true;
    },
    onMessages: (messages) => {
      const added = messages.flatMap(({ workload, lines: texts }) =>
        texts.map((text) => ({ key: nextKey.current++, workload, ...readable(text) })),
      );
      const replaces = isFresh.current;
      isFresh.current = false;
      setLines((before) => [...(replaces ? [] : before), ...added].slice(-KEPT));
    },
    isComplete,
  });
  const workloads = [...new Set(lines.map((line) => line.workload))].sort();
  const shown = chosen ? lines.filter((line) => line.workload === chosen) : lines;
  return (
    <Panel
      title="Logs"
      className="logs"
      extra={
        <>
          {workloads.length > 1 && (
            <select value={chosen} onChange={(event) => setChosen(event.target.value)} aria-label="Process">
              <option value="">all processes</option>
              {workloads.map((name) => (
                <option key={name} value={name}>{nameOf(name)}</option>
              ))}
            </select>
          )}
          <LiveMark liveness={liveness} />
        </>
      }
    >
      {error && <p className="empty">{error.message}</p>}
      {!error && shown.length === 0 && <p className="empty">{empty}</p>}
      {shown.length > 0 && <Tail lines={shown} withNames={!chosen && workloads.length > 1} nameOf={nameOf} />}
    </Panel>
  );
}

// The lines, scrolled to the last one unless the reader scrolled up.
function Tail({ lines, withNames, nameOf }: { lines: Line[]; withNames: boolean; nameOf: (name: string) => string }) {
  const box = useRef<HTMLDivElement>(null);
  const [follows, setFollows] = useState(true);
  useLayoutEffect(() => {
    if (follows && box.current) box.current.scrollTop = box.current.scrollHeight;
  }, [lines, follows]);
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const look = () => setFollows(element.scrollHeight - element.scrollTop - element.clientHeight < 24);
    element.addEventListener("scroll", look, { passive: true });
    return () => element.removeEventListener("scroll", look);
  }, []);
  return (
    <div className="tail-box">
      <div className="tail" ref={box} role="log" aria-label="Log lines" tabIndex={0}>
        {lines.map((line) => (
          <div key={line.key} className="line" data-level={line.level}>
            {withNames && <span className="workload">{nameOf(line.workload)}</span>}
            {line.time && <span className="time">{line.time}</span>}
            {line.text || "\u00a0"}
            {line.facts && <span className="facts-text"> {line.facts}</span>}
          </div>
        ))}
      </div>
      {!follows && (
        <button type="button" className="to-end" onClick={() => setFollows(true)}>
          Newest lines ↓
        </button>
      )}
    </div>
  );
}
