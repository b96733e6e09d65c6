import { useState } from "react";
import { useLocation } from "wouter";
import { Button, ButtonLink } from "@/components/ui/Button";
import { Confirm } from "@/components/ui/Dialog";
import type { Job } from "@/lib/wire";
import { useCancel, useDelete, type useVerb } from "../api/job";

/** What can be done with the job now: the buttons are the verbs that its status allows. */
export function Actions({ job, verb }: { job: Job; verb: ReturnType<typeof useVerb> }) {
  const [, navigate] = useLocation();
  const may = (name: string) => job.allowed.includes(name);
  const pausing = job.status === "pausing";
  return (
    <>
      {(may("pause") || pausing) && (
        <Button icon="pause" busy={verb.isPending} disabled={pausing} onClick={() => verb.mutate("pause")}>
          {pausing ? "Pausing…" : "Pause"}
        </Button>
      )}
      {may("resume") && (
        <Button look="primary" icon="play" busy={verb.isPending} onClick={() => verb.mutate("resume")}>
          Resume
        </Button>
      )}
      {may("retry") && (
        <Button
          icon="retry"
          busy={verb.isPending}
          title="Submit it again as a new job"
          onClick={() => verb.mutate("retry", { onSuccess: (made) => navigate(`/jobs/${made.id}`) })}
        >
          Retry
        </Button>
      )}
      {may("clone") && (
        <ButtonLink href={`/submit?from=${job.id}`} icon="copy">
          Clone
        </ButtonLink>
      )}
      {(may("cancel") || job.status === "cancelling") && <Cancel job={job} />}
      {may("delete") && <Delete job={job} />}
    </>
  );
}

function Cancel({ job }: { job: Job }) {
  const [asking, setAsking] = useState(false);
  const cancel = useCancel(job.id);
  const cancelling = job.status === "cancelling";
  return (
    <>
      <Button look="danger" icon="cancel" disabled={cancelling} onClick={() => setAsking(true)}>
        {cancelling ? "Cancelling…" : "Cancel"}
      </Button>
      <Confirm
        open={asking}
        title="Cancel this job?"
        verb="Cancel the job"
        busy={cancel.isPending}
        error={cancel.error}
        onConfirm={() => cancel.mutate(undefined, { onSuccess: () => setAsking(false) })}
        onClose={() => setAsking(false)}
      >
        <p>
          It stops within seconds and leaves no model.
          {job.spec.privacy && " The privacy that its steps have spent stays spent."}
        </p>
      </Confirm>
    </>
  );
}

function Delete({ job }: { job: Job }) {
  const [, navigate] = useLocation();
  const [asking, setAsking] = useState(false);
  const remove = useDelete(job.id);
  return (
    <>
      <Button icon="trash" onClick={() => setAsking(true)}>
        Delete
      </Button>
      <Confirm
        open={asking}
        title="Delete this job?"
        verb="Delete the job"
        busy={remove.isPending}
        error={remove.error}
        onConfirm={() => remove.mutate(undefined, { onSuccess: () => navigate("/jobs") })}
        onClose={() => setAsking(false)}
      >
        <p>
          Its metrics, logs, events, model and privacy statement are deleted. Download what you need before; this cannot
          be undone.
        </p>
      </Confirm>
    </>
  );
}
