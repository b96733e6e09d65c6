import type { ReactNode } from "react";
import { Button } from "@/components/ui/Button";
import { Facts } from "@/components/ui/Page";
import { Loading, Note, ProblemNote } from "@/components/ui/State";
import { bytes, integer, number, percent, title } from "@/lib/format";
import { parts } from "@/lib/pointer";
import { ProblemError, sentence } from "@/lib/problem";
import type { JsonObject, Plan } from "@/lib/wire";
import type { PlanState } from "../api/submit";
import { guaranteeOf } from "./draft";

/** What the draft comes to, and the button that submits it. */
export function PlanPanel({
  draft,
  planned,
  problems,
  blocked,
  busy,
  error,
}: {
  draft: JsonObject;
  planned: PlanState;
  problems: readonly (readonly [string, string])[];
  blocked: boolean;
  busy: boolean;
  error: unknown;
}) {
  const invalid = planned.error instanceof ProblemError && planned.error.status === 422;
  return (
    <aside className="submit__plan" aria-label="Plan">
      <section className="panel">
        <header className="panel__head">
          <h2>Plan</h2>
          <span className="small muted" role="status">
            {planned.slow ? "Calibrating the noise…" : planned.stale && !blocked ? "Computing…" : ""}
          </span>
        </header>
        <div className={planned.stale ? "panel__body plan--stale" : "panel__body"}>
          {planned.error !== null && planned.error !== undefined ? (
            <PlanProblem error={planned.error} problems={problems} invalid={invalid} />
          ) : planned.plan ? (
            <PlanFacts plan={planned.plan} draft={draft} />
          ) : (
            <Loading lines={6} />
          )}
        </div>
      </section>
      {planned.error === null && planned.plan?.warnings.map((warning) => (
        <Note key={warning} tone="warn">
          <span>{warning}</span>
        </Note>
      ))}
      <ProblemNote error={error} />
      <Button type="submit" look="primary" className="button--wide" busy={busy} disabled={blocked || invalid}>
        {busy ? "Submitting…" : "Submit job"}
      </Button>
    </aside>
  );
}

function PlanFacts({ plan, draft }: { plan: Plan; draft: JsonObject }) {
  const guarantee = guaranteeOf(draft);
  const guarded = guarantee === "epsilon" || guarantee === "noise";
  const facts: (readonly [string, ReactNode])[] = [
    ["Steps", integer(plan.steps)],
    ["Rows to train on", integer(plan.training_size)],
    ["Sampling rate", percent(plan.sampling_rate, 2)],
    [guarded ? "Expected batch" : "Batch", number(plan.expected_batch_size)],
    ...(guarded ? [["Noise multiplier", number(plan.noise_multiplier)] as const] : []),
    ["Parameters", integer(plan.parameters)],
    ["Memory", bytes(plan.memory_bytes)],
  ];
  return (
    <div className="stack">
      {guarded ? (
        <div>
          <div className="plan-epsilon">
            <b>ε {number(plan.epsilon, 4)}</b>
            <span className="small muted">at delta {number(plan.delta)}</span>
          </div>
          <p className="small muted">is what the whole job spends.</p>
        </div>
      ) : (
        <div>
          <div className="plan-epsilon">
            <b>No guarantee</b>
          </div>
          <p className="small muted">
            {guarantee === "clipping" ? "Gradients are clipped, no noise is added." : "Neither clipping nor noise."}
          </p>
        </div>
      )}
      <Facts list items={facts} />
    </div>
  );
}

function PlanProblem({
  error,
  problems,
  invalid,
}: {
  error: unknown;
  problems: readonly (readonly [string, string])[];
  invalid: boolean;
}) {
  if (!invalid) return <p className="small">{sentence(error)}</p>;
  return (
    <div className="stack small" role="alert">
      <p>
        <strong>There is no plan yet.</strong> {problems.length === 0 ? "Correct what is marked in the form." : ""}
      </p>
      <ul className="bullets">
        {problems.map(([pointer, detail]) => (
          <li key={pointer}>
            {pointer !== "" && <strong>{parts(pointer).map(title).join(" › ")}: </strong>}
            {detail}
          </li>
        ))}
      </ul>
    </div>
  );
}
