/** What stands in a page's place while there is nothing to show: loading, nothing, or an error. */
import type { ReactNode } from "react";
import { Button } from "@/components/ui/Button";
import { Icon, type IconName } from "@/components/ui/Icon";
import { ProblemError, sentence } from "@/lib/problem";

export function Loading({ lines = 5 }: { lines?: number }) {
  return (
    <div className="skeleton" role="status" aria-label="Loading">
      {Array.from({ length: lines }, (_, line) => (
        <span key={line} style={{ width: `${92 - ((line * 23) % 45)}%` }} />
      ))}
    </div>
  );
}

export function Empty({ icon, title, children }: { icon: IconName; title: string; children?: ReactNode }) {
  return (
    <div className="empty">
      <Icon name={icon} size={36} />
      <h2>{title}</h2>
      {children}
    </div>
  );
}

export function Failed({ error, retry }: { error: unknown; retry?: () => void }) {
  return (
    <div className="empty" role="alert">
      <Icon name="warning" size={36} />
      <h2>{error instanceof ProblemError && error.status === 404 ? "Not found" : "This could not be loaded"}</h2>
      <p>{sentence(error)}</p>
      {retry && <Button onClick={retry}>Try again</Button>}
    </div>
  );
}

type NoteTone = "plain" | "good" | "warn" | "bad";
const NOTE_ICONS: Record<NoteTone, IconName> = { plain: "info", good: "check", warn: "warning", bad: "warning" };

export function Note({ tone = "plain", children }: { tone?: NoteTone; children: ReactNode }) {
  return (
    <div className={`note note--${tone}`} role={tone === "bad" ? "alert" : undefined}>
      <Icon name={NOTE_ICONS[tone]} />
      <div>{children}</div>
    </div>
  );
}

/** A refused action, beside its button. */
export function ProblemNote({ error }: { error: unknown }) {
  if (error === null || error === undefined) return null;
  const problem = error instanceof ProblemError ? error : null;
  const place = [
    problem?.row !== null && problem?.row !== undefined ? `row ${problem.row}` : null,
    problem?.column ? `column “${problem.column}”` : null,
  ].filter(Boolean);
  return (
    <Note tone="bad">
      {place.length > 0 && <strong>At {place.join(", ")}</strong>}
      <span>{sentence(error)}</span>
      {problem && problem.status >= 500 && problem.requestId && (
        <span className="muted">Request {problem.requestId}</span>
      )}
    </Note>
  );
}
