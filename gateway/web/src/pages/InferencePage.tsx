import { useEffect, useRef, useState } from "react";
import { getInference, stopInference, watchInference, watchInferenceLogs } from "../api/inferences";
import type { Inference, PredictionEvent } from "../api/types";
import { Answers } from "../components/Answers";
import { Ago, Failure, LiveMark, NotLoaded, Panel, StatePill } from "../components/Bits";
import { ConfirmButton } from "../components/ConfirmButton";
import { DeadLetters } from "../components/DeadLetters";
import { LineChart } from "../components/LineChart";
import { Logs } from "../components/Logs";
import { Replicas } from "../components/Replicas";
import { useLoaded } from "../hooks/useLoaded";
import { useNow } from "../hooks/useNow";
import { useStream } from "../hooks/useStream";
import { clock, count, rate, words } from "../state/format";
import { answeredOf, deadLettersOf, lagOf, type Moment, NOTHING, rateOf, type Serving, withEvents } from "../state/serving";
import { hasEnded } from "../state/states";

export function InferencePage({ id }: { id: string }) {
  const facts = useLoaded(`inference ${id}`, (signal) => getInference(id, signal));
  const serving = useRef<Serving>(NOTHING);
  const [, render] = useState<Serving>(NOTHING);
  const state = () => serving.current.inference?.state ?? facts.value?.state ?? "INFERENCE_STATE_UNSPECIFIED";
  const { liveness, error } = useStream<PredictionEvent>(facts.value ? watchInference(id) : null, {
    onMessages: (events) => {
      serving.current = withEvents(serving.current, events, Date.now());
      render(serving.current);
    },
    isComplete: () => hasEnded(state()),
  });
  const inference = serving.current.inference ?? facts.value;
  const name = inference?.name || inference?.modelName;
  useEffect(() => {
    document.title = `${name ?? `Inference ${id}`} · Headrace`;
  }, [id, name]);

  if (!inference) return <NotLoaded error={facts.error} what={`inference ${id}`} />;
  return (
    <>
      <Head inference={inference} liveness={<LiveMark liveness={liveness} />} />
      {error && <p className="notice" role="alert">{error.message}</p>}
      {inference.error && inference.state === "INFERENCE_STATE_FAILED" && (
        <Failure status={inference.error} what="The inference failed." />
      )}
      {inference.warnings.map((warning) => <p className="notice" key={warning}>{warning}</p>)}
      <Tiles inference={inference} />
      {(serving.current.history.length > 1 || !hasEnded(inference.state)) && <Charts history={serving.current.history} />}
      <Replicas inference={inference} />
      <DeadLetters inference={inference} />
      <div className="columns even">
        <Answers answers={serving.current.answers} hasEnded={hasEnded(inference.state)} />
        <Logs
          path={watchInferenceLogs(id)}
          isComplete={() => hasEnded(state())}
          empty={hasEnded(inference.state) ? "Its processes wrote nothing." : "No lines yet."}
          nameOf={(workload) => workload.replace(/^infer-\d+-(\d+)$/, "replica $1")}
        />
      </div>
    </>
  );
}

function Head({ inference, liveness }: { inference: Inference; liveness: React.ReactNode }) {
  const now = useNow();
  return (
    <div className="head">
      <div className="title">
        <h1>
          {inference.name || inference.modelName} <span className="id">inference {inference.id}</span>
        </h1>
        <StatePill state={inference.state} />
        {liveness}
        {!hasEnded(inference.state) && inference.state !== "INFERENCE_STATE_STOPPING" && (
          <ConfirmButton label="Stop" question="Really stop this inference?" act={() => stopInference(inference.id)} />
        )}
      </div>
      <p className="flow">
        <code>{inference.inputTopic}</code> → <b>{inference.modelName} version {inference.modelVersion}</b> →{" "}
        <code>{inference.outputTopic}</code>
        {inference.alias && <span className="aside"> · follows the alias {inference.alias}</span>}
      </p>
      <dl className="facts">
        <div>
          <dt>created</dt>
          <dd><Ago time={inference.createTime} now={now} /></dd>
        </div>
        <div>
          <dt>result</dt>
          <dd>{inference.resultId}</dd>
        </div>
        <div>
          <dt>guarantee</dt>
          <dd>{orDefault(words(inference.guarantee, "GUARANTEE_"), "exactly once")}</dd>
        </div>
        <div>
          <dt>bad records</dt>
          <dd>{orDefault(words(inference.onError, "ERROR_POLICY_"), "dead letter")}</dd>
        </div>
        {inference.inputFormat !== "DATA_FORMAT_UNSPECIFIED" && (
          <div>
            <dt>input</dt>
            <dd>{words(inference.inputFormat, "DATA_FORMAT_").toUpperCase()}</dd>
          </div>
        )}
      </dl>
    </div>
  );
}

const orDefault = (word: string, byDefault: string): string => (word === "unspecified" ? byDefault : word);

function Tiles({ inference }: { inference: Inference }) {
  const dead = deadLettersOf(inference);
  return (
    <dl className="tiles">
      <div data-tile="rate">
        <dt>records per second</dt>
        <dd>{rate(rateOf(inference))}</dd>
      </div>
      <div data-tile="lag">
        <dt>lag</dt>
        <dd>{count(lagOf(inference))}</dd>
      </div>
      <div data-tile="answered">
        <dt>answered</dt>
        <dd>{count(answeredOf(inference))}</dd>
      </div>
      <div data-tile="dead" data-tone={dead ? "bad" : undefined}>
        <dt>dead letters</dt>
        <dd>{count(dead)}</dd>
      </div>
    </dl>
  );
}

function Charts({ history }: { history: Moment[] }) {
  return (
    <div className="columns even">
      <Small title="Rate" history={history} color={0} of={(moment) => moment.rate} format={rate} name="records per second" />
      <Small title="Lag" history={history} color={1} of={(moment) => moment.lag} format={(y) => count(Math.round(y))} name="records waiting" />
    </div>
  );
}

interface SmallProps {
  title: string;
  name: string;
  history: Moment[];
  color: number;
  of: (moment: Moment) => number;
  format: (value: number) => string;
}

function Small({ title, name, history, color, of, format }: SmallProps) {
  const points = history.map((moment): [number, number] => [moment.time, of(moment)]);
  return (
    <Panel title={title} extra={<span className="id">since this page is open</span>}>
      {points.length > 1 ? (
        <LineChart
          series={[{ id: title.toLowerCase(), label: name, color, points }]}
          label={`${name} since this page is open`}
          xName=""
          formatX={clock}
          timeX
          formatY={format}
          height={150}
          fromZero
        />
      ) : (
        <p className="empty">It begins with the second report.</p>
      )}
    </Panel>
  );
}
