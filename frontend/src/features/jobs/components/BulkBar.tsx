import { useState } from "react";
import { Button } from "@/components/ui/Button";
import { Confirm, Dialog } from "@/components/ui/Dialog";
import type { IconName } from "@/components/ui/Icon";
import { integer, plural, title } from "@/lib/format";
import { nameOf } from "@/lib/outcome";
import type { BulkVerb, Job, JobFilter } from "@/lib/wire";
import { useBulk, type BulkDone } from "../api/bulk";
import type { Choice } from "./choice";

const VERBS: readonly { verb: BulkVerb; icon: IconName; danger?: true; about: string }[] = [
  { verb: "pause", icon: "pause", about: "Each stops when it has written a checkpoint. A worker can then take others." },
  { verb: "resume", icon: "play", about: "Each waits for a worker and goes on from its last checkpoint." },
  {
    verb: "retry",
    icon: "retry",
    about: "Each is submitted again as a new job, which spends privacy of its own. Those that ended stay as they are.",
  },
  {
    verb: "cancel",
    icon: "cancel",
    danger: true,
    about: "They stop within seconds and leave no model. The privacy that their steps have spent stays spent.",
  },
  {
    verb: "delete",
    icon: "trash",
    danger: true,
    about: "Their metrics, logs, events, models and privacy statements are deleted. This cannot be undone.",
  },
];

/** What can be done with the chosen jobs; it floats, so that no row moves when it comes and goes. */
export function BulkBar({
  jobs,
  choice,
  whole,
  more,
}: {
  /** The chosen ones at hand. */
  jobs: readonly Job[];
  choice: Choice;
  /** The conditions of the whole list. */
  whole: JobFilter;
  /** Whether all at hand are chosen, and other pages have more. */
  more: boolean;
}) {
  const [asking, setAsking] = useState<(typeof VERBS)[number] | null>(null);
  const [refusals, setRefusals] = useState<{ done: BulkDone; names: ReadonlyMap<string, string> } | null>(null);
  const [said, setSaid] = useState("");
  const bulk = useBulk();
  const able = (verb: BulkVerb) => jobs.filter((job) => job.allowed.includes(verb)).length;
  const all = choice.beyond ? "all jobs of this list" : null;
  const close = () => {
    setAsking(null);
    bulk.reset();
  };
  const send = (verb: BulkVerb) => {
    const names = new Map(jobs.map((job) => [job.id, nameOf(job)]));
    bulk.mutate(
      { verb, filter: all ? whole : { ids: jobs.map((job) => job.id) } },
      {
        onSuccess: (done) => {
          setSaid(`${title(verb)}: done for ${plural(done.changed.length, "job")}`);
          setRefusals(done.refused.length > 0 ? { done, names } : null);
          close();
          choice.clear();
        },
      },
    );
  };
  return (
    <>
      <div aria-live="polite" className="visually-hidden">
        {jobs.length > 0 ? `${all ?? plural(jobs.length, "job")} selected` : said}
      </div>
      {jobs.length > 0 && (
        <section className="bulk" aria-label="Selected jobs">
          <span className="bulk__count">{all ? "All pages" : integer(jobs.length)} selected</span>
          {more && !all && (
            <Button small look="quiet" onClick={choice.goBeyond}>
              Select all pages
            </Button>
          )}
          {VERBS.map((one) => (
            <Button
              key={one.verb}
              small
              look={one.danger ? "danger" : "plain"}
              icon={one.icon}
              disabled={!all && able(one.verb) === 0}
              onClick={() => setAsking(one)}
            >
              {title(one.verb)}
            </Button>
          ))}
          <Button small look="quiet" icon="close" iconOnly onClick={choice.clear}>
            Select none
          </Button>
        </section>
      )}
      <Confirm
        open={asking !== null}
        title={asking ? `${title(asking.verb)} ${all ?? counted(able(asking.verb), jobs.length)}?` : ""}
        verb={asking ? `${title(asking.verb)} ${all ? "all of them" : plural(able(asking.verb), "job")}` : ""}
        keep="Back"
        danger={asking?.danger ?? false}
        busy={bulk.isPending}
        error={bulk.error}
        onConfirm={() => asking && send(asking.verb)}
        onClose={close}
      >
        {asking && <p>{asking.about}</p>}
        {all && <p>{described(whole)}</p>}
        {asking && all && <p className="muted">What cannot be {PAST[asking.verb]} as it is now is left alone.</p>}
        {asking && !all && able(asking.verb) < jobs.length && (
          <p className="muted">The others cannot be {PAST[asking.verb]} as they are now and are left alone.</p>
        )}
      </Confirm>
      {refusals && <Refusals {...refusals} onClose={() => setRefusals(null)} />}
    </>
  );
}

/** Say which jobs a list has, on all its pages. */
function described({ status, q, tag }: JobFilter): string {
  const parts = [
    status?.length ? `that is ${status.join(" or ")}` : "",
    q ? `with “${q}” in their name` : "",
    tag?.length ? `with the tag ${tag.join(", ")}` : "",
  ].filter((part) => part !== "");
  return `This means every job${parts.length > 0 ? ` ${parts.join(", ")}` : " that there is"}, on all pages.`;
}

const PAST: Record<BulkVerb, string> = {
  pause: "paused",
  resume: "resumed",
  retry: "retried",
  cancel: "cancelled",
  delete: "deleted",
};

function counted(able: number, all: number): string {
  return able === all ? plural(all, "job") : `${integer(able)} of ${plural(all, "job")}`;
}

/** Which jobs stayed as they were, and why. */
function Refusals({
  done,
  names,
  onClose,
}: {
  done: BulkDone;
  names: ReadonlyMap<string, string>;
  onClose: () => void;
}) {
  return (
    <Dialog open title={`${plural(done.refused.length, "job")} refused`} onClose={onClose}>
      <p>
        {done.changed.length === 0 ? "Nothing was changed." : `Done for ${plural(done.changed.length, "job")}.`} These
        stayed as they were:
      </p>
      <ul className="refusals small">
        {done.refused.map((one) => (
          <li key={one.id}>
            <strong>{names.get(one.id) ?? one.id}</strong>
            <span className="muted">{one.detail}</span>
          </li>
        ))}
      </ul>
      <div className="dialog__actions">
        <Button onClick={onClose}>Close</Button>
      </div>
    </Dialog>
  );
}
