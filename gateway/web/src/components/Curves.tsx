// The curves of all models of a training in one chart, a metric at a time.
import { useMemo, useState } from "react";
import { count, metric } from "../state/format";
import { hasEnded } from "../state/states";
import { curve, metricNames, type Run, type Split } from "../state/training";
import { Panel } from "./Bits";
import { LineChart, type Series, Swatch } from "./LineChart";

const SHOWN: Split[] = ["training", "validation"];

export function Curves({ runs }: { runs: Run[] }) {
  const isOver = runs.every((run) => run.result && hasEnded(run.result.state));
  const names = useMemo(() => metricNames(runs), [runs]);
  const [chosen, setChosen] = useState("");
  const [log, setLog] = useState(false);
  const [hidden, setHidden] = useState<ReadonlySet<string>>(new Set());
  const name = names.includes(chosen) ? chosen : (names[0] ?? "");
  const all = useMemo(() => seriesOf(runs, name), [runs, name]);
  const shown = useMemo(() => all.filter((one) => !hidden.has(one.id)), [all, hidden]);
  const toggle = (id: string) => {
    const next = new Set(hidden);
    if (!next.delete(id)) next.add(id);
    setHidden(next);
  };
  return (
    <Panel title="Curves" className="curves" extra={names.length > 0 && <Pickers {...{ names, name, setChosen, log, setLog }} />}>
      {name ? (
        <>
          <LineChart
            series={shown}
            label={`${name} by epoch, of ${runs.length} models`}
            xName="epoch"
            formatX={count}
            formatY={metric}
            log={log}
            wholeX
            height={320}
          />
          <div className="legend">
            {all.map((one) => (
              <button key={one.id} type="button" aria-pressed={!hidden.has(one.id)} onClick={() => toggle(one.id)}>
                <Swatch color={one.color} dashed={one.dashed ?? false} /> {one.label}
              </button>
            ))}
          </div>
        </>
      ) : (
        <p className="empty">{isOver ? "It ended before its first epoch." : "The curves begin with the first epoch."}</p>
      )}
    </Panel>
  );
}

interface PickersProps {
  names: string[];
  name: string;
  setChosen: (name: string) => void;
  log: boolean;
  setLog: (log: boolean) => void;
}

function Pickers({ names, name, setChosen, log, setLog }: PickersProps) {
  return (
    <div className="pickers">
      <button type="button" className="quiet" aria-pressed={log} onClick={() => setLog(!log)} title="Logarithmic scale">
        log
      </button>
      <div className="tabs" role="group" aria-label="Metric">
        {names.map((one) => (
          <button key={one} type="button" aria-pressed={one === name} onClick={() => setChosen(one)}>
            {one}
          </button>
        ))}
      </div>
    </div>
  );
}

function seriesOf(runs: Run[], name: string): Series[] {
  return runs.flatMap((run, color) =>
    SHOWN.flatMap((split): Series[] => {
      const points = curve(run, split, name);
      const model = run.result?.modelName || `result ${run.id}`;
      return points.length
        ? [{ id: `${run.id}-${split}`, label: `${model}, ${split}`, color, dashed: split === "validation", points }]
        : [];
    }),
  );
}
