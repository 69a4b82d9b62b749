// What each model reached, and what it left: the last metrics of every split, sizes of the splits, files.
import { downloadAllOf, downloadOf } from "../api/deployments";
import type { Result } from "../api/types";
import { bytes, count, duration, metric, secondsOf } from "../state/format";
import { finalMetrics, lessIsBetter, type Run, type Split, valueOf } from "../state/training";
import { Panel } from "./Bits";
import { Swatch } from "./LineChart";

export function MetricsTable({ runs }: { runs: Run[] }) {
  const results = runs.flatMap((run) => run.result ?? []);
  const columns = finalMetrics(results);
  return (
    <Panel title="Metrics" className="metrics">
      {columns.length ? <Table results={results} columns={columns} /> : <p className="empty">None.</p>}
      <Details results={results} />
    </Panel>
  );
}

function Table({ results, columns }: { results: Result[]; columns: { name: string; splits: Split[] }[] }) {
  return (
    <div className="scroll">
      <table>
        <thead>
          <tr>
            <th rowSpan={2} scope="col">Model</th>
            {columns.map(({ name, splits }) => (
              <th key={name} colSpan={splits.length} scope="colgroup" className="group">{name}</th>
            ))}
          </tr>
          <tr>
            {columns.flatMap(({ name, splits }) =>
              splits.map((split) => <th key={name + split} scope="col" className="number">{split}</th>),
            )}
          </tr>
        </thead>
        <tbody>
          {results.map((result, index) => (
            <tr key={result.id}>
              <th scope="row"><Swatch color={index} /> {result.modelName}</th>
              {columns.flatMap(({ name, splits }) =>
                splits.map((split) => <Cell key={name + split} {...{ results, result, name, split }} />),
              )}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}

function Cell({ results, result, name, split }: { results: Result[]; result: Result; name: string; split: Split }) {
  const value = valueOf(result.metrics, split, name);
  const others = results.flatMap((one) => valueOf(one.metrics, split, name) ?? []);
  const best = lessIsBetter(name) ? Math.min(...others) : Math.max(...others);
  const isBest = others.length > 1 && value === best;
  return (
    <td className="number" data-best={isBest || undefined} title={isBest ? "the best of them" : undefined}>
      {value === undefined ? "–" : metric(value)}
    </td>
  );
}

function Details({ results }: { results: Result[] }) {
  const known = results.filter((result) => result.splitSizes || result.artifacts.length || result.frameworkVersion);
  if (!known.length) return null;
  return (
    <ul className="details">
      {known.map((result) => (
        <li key={result.id}>
          <b>{result.modelName}</b>
          {[...detailsOf(result)].map((detail) => (
            <span key={detail}>{detail}</span>
          ))}
          {result.artifacts.map((artifact) => (
            <a key={artifact.name} href={downloadOf(result, artifact)} download={artifact.name}>
              {artifact.name} ({bytes(artifact.sizeBytes)})
            </a>
          ))}
          {result.artifacts.length > 0 && (
            <a href={downloadAllOf(result)} download title="every file in one zip, with how to load each">
              all files
            </a>
          )}
          {result.state === "STATE_FINISHED" && <code title="serves this model on topics">headrace infer {result.id}</code>}
        </li>
      ))}
    </ul>
  );
}

function* detailsOf(result: Result): Generator<string> {
  const sizes = result.splitSizes;
  if (sizes) yield `${count(sizes.training)} + ${count(sizes.validation)} + ${count(sizes.test)} rows`;
  if (result.readingTime) yield `read in ${duration(secondsOf(result.readingTime))}`;
  if (result.trainingTime) yield `trained in ${duration(secondsOf(result.trainingTime))}`;
  if (Number(result.decodeErrorCount)) yield `${count(result.decodeErrorCount)} records left out`;
  if (result.frameworkVersion) yield result.frameworkVersion;
}
