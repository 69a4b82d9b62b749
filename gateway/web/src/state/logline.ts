// A line of a log as people read it: our own JSON lines taken apart, anything else as it is.
import { clock } from "./format";

export interface Readable {
  text: string;
  time?: string;
  level?: string;
  // The fields beside the message, as name=value.
  facts?: string;
}

const ESCAPES = /\u001b\[[0-9;?]*[A-Za-z]/g;
const KNOWN = new Set(["time", "level", "service", "logger", "message", "exception"]);

export function readable(line: string): Readable {
  const fields = fieldsOf(line);
  if (!fields) return { text: line.replace(ESCAPES, "") };
  const rest = Object.entries(fields).filter(([name]) => !KNOWN.has(name));
  const text = fields.exception ? `${fields.message}\n${fields.exception}` : String(fields.message);
  return {
    text,
    time: clock(String(fields.time)),
    level: String(fields.level),
    facts: rest.map(([name, value]) => `${name}=${typeof value === "string" ? value : JSON.stringify(value)}`).join(" "),
  };
}

function fieldsOf(line: string): Record<string, unknown> | null {
  if (!line.startsWith("{")) return null;
  try {
    const fields = JSON.parse(line) as Record<string, unknown>;
    return "time" in fields && "level" in fields && "message" in fields ? fields : null;
  } catch {
    return null;
  }
}
