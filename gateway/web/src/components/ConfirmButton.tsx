import { useEffect, useState } from "react";
import { ApiError } from "../api/client";

interface Props {
  label: string;
  question: string;
  act: () => Promise<unknown>;
}

// A button that asks once before it acts, and says why it could not.
export function ConfirmButton({ label, question, act }: Props) {
  const [step, setStep] = useState<"idle" | "asking" | "busy">("idle");
  const [error, setError] = useState("");
  useEffect(() => {
    if (step !== "asking") return;
    const timer = window.setTimeout(() => setStep("idle"), 4000);
    return () => window.clearTimeout(timer);
  }, [step]);
  const press = async () => {
    if (step === "idle") return setStep("asking");
    setStep("busy");
    try {
      await act();
      setError("");
    } catch (failed) {
      setError(failed instanceof ApiError ? failed.message : String(failed));
    }
    setStep("idle");
  };
  return (
    <>
      {error && <span className="bad-text" role="alert">{error}</span>}
      <button type="button" onClick={press} disabled={step === "busy"} data-asking={step === "asking" || undefined}>
        {step === "asking" ? question : label}
      </button>
    </>
  );
}
