import { Link } from "wouter";
import { StatusChip } from "@/components/ui/Chip";
import { Page } from "@/components/ui/Page";
import { Failed, Loading, ProblemNote } from "@/components/ui/State";
import { Tabs } from "@/components/ui/Tabs";
import { Ago } from "@/components/ui/Time";
import { useParam } from "@/lib/address";
import { nameOf } from "@/lib/outcome";
import { isTerminal, type Job } from "@/lib/wire";
import { useEvents } from "../api/events";
import { useJob, useVerb } from "../api/job";
import type { Liveness } from "../api/stream";
import { Actions } from "./Actions";
import { Artifacts } from "./Artifacts";
import { Attempts } from "./Attempts";
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
  { value: "attempts", label: "Attempts" },
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
  const verb = useVerb(job.id);
  const known = TABS.some((one) => one.value === tab) ? tab : "overview";
  return (
    <Page
      title={nameOf(job)}
      back={{ href: "/jobs", label: "Jobs" }}
      about={<Subtitle job={job} liveness={events.liveness} />}
      actions={<Actions job={job} verb={verb} />}
    >
      <div aria-live="polite" className="visually-hidden">
        Status: {job.status}
        {job.phase ? `, ${job.phase}` : ""}
      </div>
      <ProblemNote error={verb.error} />
      <Reason job={job} />
      <JobStrip job={job} />
      <Tabs label="About this job" value={known} tabs={TABS} onValue={setTab}>
        {known === "overview" && <Overview job={job} />}
        {known === "gradients" && <Gradients job={job} />}
        {known === "privacy" && <PrivacyTab job={job} />}
        {known === "logs" && <Logs job={job} />}
        {known === "events" && <Events query={events.list} />}
        {known === "attempts" && <Attempts job={job} />}
        {known === "artifacts" && <Artifacts job={job} />}
        {known === "spec" && <SpecTab job={job} />}
      </Tabs>
    </Page>
  );
}

const LIVENESS: Record<Liveness, string> = { live: "live", polling: "refreshing", ended: "" };

const MADE: Record<"clone" | "retry", string> = { clone: "cloned from", retry: "a retry of" };

function Subtitle({ job, liveness }: { job: Job; liveness: Liveness }) {
  return (
    <span className="stack stack--tight">
      <What job={job} liveness={liveness} />
      <Where job={job} />
    </span>
  );
}

/** Where it comes from and who has it. */
function Where({ job }: { job: Job }) {
  return (
    <span className="row small">
      <span>
        created <Ago at={job.created_at} />
      </span>
      {job.worker_id !== null && job.worker_id !== undefined && (
        <span>
          · on worker <span className="mono">{job.worker_id}</span>
        </span>
      )}
      {job.priority !== 0 && <span>· priority {job.priority}</span>}
      {job.parent && (
        <span>
          · {MADE[job.parent.verb]} <Link href={`/jobs/${job.parent.id}`}>{job.parent.id}</Link>
        </span>
      )}
    </span>
  );
}

function What({ job, liveness }: { job: Job; liveness: Liveness }) {
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
