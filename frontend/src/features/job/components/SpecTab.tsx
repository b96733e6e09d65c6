import { ButtonLink } from "@/components/ui/Button";
import { CopyButton } from "@/components/ui/CopyButton";
import { JsonView } from "@/components/ui/JsonView";
import { Facts, Panel } from "@/components/ui/Page";
import { bytes, dateTime, integer, number, percent } from "@/lib/format";
import type { Job } from "@/lib/wire";

export function SpecTab({ job }: { job: Job }) {
  const plan = job.plan;
  return (
    <div className="columns">
      <Panel
        flush
        title="Specification"
        note="As submitted, every default written down"
        actions={
          <>
            <CopyButton text={JSON.stringify(job.spec, null, 2)} />
            <ButtonLink href={`/submit?from=${job.id}`} small icon="copy">
              Clone
            </ButtonLink>
          </>
        }
      >
        <JsonView value={job.spec} label="Specification as JSON" />
      </Panel>
      <div className="stack">
        {plan && (
          <Panel title="Plan">
            <Facts
              list
              items={[
                ["Steps", integer(plan.steps)],
                ["Rows to train on", integer(plan.training_size)],
                ["Expected batch size", number(plan.expected_batch_size)],
                ["Sampling rate", percent(plan.sampling_rate, 3)],
                ["Parameters", integer(plan.parameters)],
                ["Memory", bytes(plan.memory_bytes)],
              ]}
            />
          </Panel>
        )}
        <Panel title="Times">
          <Facts
            list
            items={[
              ["Created", dateTime(job.created_at)],
              ["Started", dateTime(job.started_at)],
              ["Finished", dateTime(job.finished_at)],
              ["Attempt", integer(job.attempt)],
            ]}
          />
        </Panel>
      </div>
    </div>
  );
}
