import { useState } from "react";
import { useLocation } from "wouter";
import { Button, ButtonLink } from "@/components/ui/Button";
import { StatusChip } from "@/components/ui/Chip";
import { Confirm } from "@/components/ui/Dialog";
import { Page } from "@/components/ui/Page";
import { Failed, Loading } from "@/components/ui/State";
import { Tabs } from "@/components/ui/Tabs";
import { useParam } from "@/lib/address";
import { nameOf } from "@/lib/outcome";
import { isTerminal, type Job } from "@/lib/wire";
import { useCancel, useDelete, useJob } from "../api/job";
import { useEvents, type Liveness } from "../api/events";
import { Artifacts } from "./Artifacts";
import { Events } from "./Events";
import { Gradients } from "./Gradients";
import { JobStrip, Reason } from "./JobStrip";
import { Logs } from "./Logs";
import { Overview } from "./Overview";
import { PrivacyTab } from "./PrivacyTab";
import { SpecTab } from "./SpecTab";

const TABS = [
  { value: "overview", label: "Overview" },
  { value: "gradients", label: "Gradients" },
  { value: "privacy", label: "Privacy" },
  { value: "logs", label: "Logs" },
  { value: "events", label: "Events" },
  { value: "artifacts", label: "Artifacts" },
  { value: "spec", label: "Spec" },
] as const;

export function JobPage({ id }: { id: string }) {
  const job = useJob(id);
  if (job.isPending) return <Loading lines={9} />;
  if (job.data === undefined) {
    return (
      <Page title="Job" back={{ href: "/jobs", label: "Jobs" }}>
        <Failed error={job.error} retry={() => void job.refetch()} />
      </Page>
    );
  }
  return <Loaded key={id} job={job.data} />;
}

function Loaded({ job }: { job: Job }) {
  const [tab, setTab] = useParam("tab", "overview");
  const active = !isTerminal(job.status);
  const events = useEvents(job.id, active);
  const known = TABS.some((one) => one.value === tab) ? tab : "overview";
  return (
    <Page
      title={nameOf(job)}
      back={{ href: "/jobs", label: "Jobs" }}
      about={<Subtitle job={job} liveness={events.liveness} />}
      actions={<Actions job={job} />}
    >
      <div aria-live="polite" className="visually-hidden">
        Status: {job.status}
        {job.phase ? `, ${job.phase}` : ""}
      </div>
      <Reason job={job} />
      <JobStrip job={job} />
      <Tabs label="About this job" value={known} tabs={TABS} onValue={setTab}>
        {known === "overview" && <Overview job={job} />}
        {known === "gradients" && <Gradients job={job} />}
        {known === "privacy" && <PrivacyTab job={job} />}
        {known === "logs" && <Logs job={job} />}
        {known === "events" && <Events query={events.list} />}
        {known === "artifacts" && <Artifacts job={job} />}
        {known === "spec" && <SpecTab job={job} />}
      </Tabs>
    </Page>
  );
}

const LIVENESS: Record<Liveness, string> = { live: "live", polling: "refreshing", ended: "" };

function Subtitle({ job, liveness }: { job: Job; liveness: Liveness }) {
  return (
    <span className="row small">
      <StatusChip status={job.status} />
      {job.phase && !isTerminal(job.status) && <span>{job.phase}</span>}
      <span>
        {job.spec.dataset} · {job.spec.model.kind}
        {job.attempt > 1 && ` · attempt ${job.attempt}`}
      </span>
      <span className="mono">{job.id}</span>
      {Object.entries(job.tags).map(([key, value]) => (
        <span key={key} className="tag">
          {key}: {value}
        </span>
      ))}
      {LIVENESS[liveness] !== "" && <span>· {LIVENESS[liveness]}</span>}
    </span>
  );
}

function Actions({ job }: { job: Job }) {
  const [, navigate] = useLocation();
  const [asking, setAsking] = useState<"cancel" | "delete" | null>(null);
  const cancel = useCancel(job.id);
  const remove = useDelete(job.id);
  const finished = isTerminal(job.status);
  return (
    <>
      <ButtonLink href={`/submit?from=${job.id}`} icon="copy">
        Clone
      </ButtonLink>
      {finished ? (
        <Button icon="trash" onClick={() => setAsking("delete")}>
          Delete
        </Button>
      ) : (
        <Button
          look="danger"
          icon="cancel"
          disabled={job.status === "cancelling"}
          onClick={() => setAsking("cancel")}
        >
          {job.status === "cancelling" ? "Cancelling…" : "Cancel"}
        </Button>
      )}
      <Confirm
        open={asking === "cancel"}
        title="Cancel this job?"
        verb="Cancel the job"
        busy={cancel.isPending}
        error={cancel.error}
        onConfirm={() => cancel.mutate(undefined, { onSuccess: () => setAsking(null) })}
        onClose={() => setAsking(null)}
      >
        <p>
          It stops within seconds and leaves no model.
          {job.spec.privacy && " The privacy that its steps have spent stays spent."}
        </p>
      </Confirm>
      <Confirm
        open={asking === "delete"}
        title="Delete this job?"
        verb="Delete the job"
        busy={remove.isPending}
        error={remove.error}
        onConfirm={() => remove.mutate(undefined, { onSuccess: () => navigate("/jobs") })}
        onClose={() => setAsking(null)}
      >
        <p>
          Its metrics, logs, events, model and privacy statement are deleted. Download what you need before; this cannot
          be undone.
        </p>
      </Confirm>
    </>
  );
}
