// Small pieces that every page uses.
import type { ReactNode } from "react";
import { type ApiError, factsOf, reasonOf } from "../api/client";
import type { Liveness } from "../api/events";
import type { InferenceState, State, Status } from "../api/types";
import { Link } from "../router";
import { ago } from "../state/format";
import { toneOf, wordOf } from "../state/states";

export function StatePill({ state }: { state: State | InferenceState }) {
  return (
    <span className="pill" data-tone={toneOf(state)} data-state={state}>
      {wordOf(state)}
    </span>
  );
}

const LIVENESS: Record<Liveness, { word: string; title: string }> = {
  connecting: { word: "connecting", title: "Opening the stream of events." },
  live: { word: "live", title: "Changes appear as they happen." },
  reconnecting: { word: "reconnecting", title: "The connection is lost; what happens meanwhile will be caught up." },
  paused: { word: "paused", title: "This page was in the background; it catches up now." },
  ended: { word: "complete", title: "It has ended; nothing more will change." },
  failed: { word: "not live", title: "The stream of events failed." },
};

export function LiveMark({ liveness }: { liveness: Liveness }) {
  const { word, title } = LIVENESS[liveness];
  return (
    <span className="live" data-liveness={liveness} title={title} role="status">
      {word}
    </span>
  );
}

export function Panel({ title, extra, children, className = "" }: PanelProps) {
  return (
    <section className={`panel ${className}`}>
      <header>
        <h2>{title}</h2>
        {extra}
      </header>
      {children}
    </section>
  );
}

interface PanelProps {
  title: string;
  extra?: ReactNode;
  children: ReactNode;
  className?: string;
}

// Why something failed, in the words of the server, and the facts that it gave.
export function Failure({ status, what }: { status: Pick<Status, "message" | "details">; what: string }) {
  const facts = Object.entries(factsOf(status)).sort();
  return (
    <div className="failure" role="alert">
      <p>
        <strong>{what}</strong> <code>{reasonOf(status)}</code>
      </p>
      <p className="message">{status.message}</p>
      {facts.length > 0 && (
        <dl className="facts">
          {facts.map(([name, value]) => (
            <div key={name}>
              <dt>{name.replaceAll("_", " ")}</dt>
              <dd>{value}</dd>
            </div>
          ))}
        </dl>
      )}
    </div>
  );
}

// What a page shows while it has nothing: that it loads, or why it cannot.
export function NotLoaded({ error, what }: { error: ApiError | null; what: string }) {
  if (!error) return <p className="panel empty" aria-busy="true">Loading {what} …</p>;
  return (
    <section className="panel empty" role="alert">
      <h1>{error.passes ? `Waiting for ${what}` : capital(error.message)}</h1>
      {error.passes ? (
        <p>{error.message} This page tries again by itself.</p>
      ) : (
        <p>
          <Link href="/">The overview</Link> has what there is.
        </p>
      )}
    </section>
  );
}

const capital = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

export function Ago({ time, now }: { time: string | null; now: number }) {
  if (!time) return <>–</>;
  return (
    <time dateTime={time} title={new Date(time).toLocaleString()}>
      {ago(time, now)}
    </time>
  );
}

export function Bar({ part, label }: { part: number | null; label: string }) {
  const percent = part === null ? undefined : Math.round(Math.min(1, Math.max(0, part)) * 100);
  return (
    <div className="progress" role="progressbar" aria-label={label} aria-valuemin={0} aria-valuemax={100} aria-valuenow={percent}>
      <div style={{ width: percent === undefined ? "100%" : `${percent}%` }} data-unknown={percent === undefined || undefined} />
    </div>
  );
}
