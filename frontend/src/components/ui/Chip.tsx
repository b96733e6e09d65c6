import type { ReactNode } from "react";
import type { JobStatus } from "@/lib/wire";

export type Tone = "good" | "bad" | "warn" | "active" | "idle";

export function Chip({ tone = "idle", dot = false, children }: { tone?: Tone; dot?: boolean; children: ReactNode }) {
  return (
    <span className={`chip chip--${tone}`}>
      {dot && <span className="chip__dot" aria-hidden="true" />}
      {children}
    </span>
  );
}

const TONES: Record<JobStatus, Tone> = {
  validating: "active",
  queued: "idle",
  running: "active",
  pausing: "active",
  paused: "warn",
  cancelling: "active",
  succeeded: "good",
  failed: "bad",
  cancelled: "idle",
};

export function statusTone(status: JobStatus): Tone {
  return TONES[status];
}

export function StatusChip({ status }: { status: JobStatus }) {
  return (
    <Chip tone={TONES[status]} dot>
      {status}
    </Chip>
  );
}
