import { useQuery } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { useLocation, useSearchParams } from "wouter";
import { Button, ButtonLink } from "@/components/ui/Button";
import { Segments } from "@/components/ui/Field";
import { Icon } from "@/components/ui/Icon";
import { Page } from "@/components/ui/Page";
import { Empty, Failed, Loading } from "@/components/ui/State";
import { useParam } from "@/lib/address";
import { title } from "@/lib/format";
import { useSettled, useShortcuts } from "@/lib/hooks";
import { conditions, GROUPS, isGroup, jobsQuery, type Group } from "../api/jobs";
import { BulkBar } from "./BulkBar";
import { useChoice } from "./choice";
import { JobsTable } from "./JobsTable";

const GROUP_OPTIONS = (Object.keys(GROUPS) as Group[]).map((group) => ({ value: group, label: title(group) }));

export function JobsPage() {
  const [, navigate] = useLocation();
  const [groupParam, setGroup] = useParam("status", "all");
  const [search, setSearch] = useParam("q");
  const [tag, setTag] = useParam("tag");
  const group = isGroup(groupParam) ? groupParam : "all";
  const settled = useSettled(search.trim(), 200);
  const [after] = useParam("after");
  const jobs = useQuery(jobsQuery({ group, search: settled, tag, after }));
  const rows = jobs.data?.data ?? [];
  const [selected, setSelected] = useState<number | null>(null);
  const whole = conditions({ group, search: settled, tag });
  const choice = useChoice(
    rows.map((job) => job.id),
    JSON.stringify(whole),
  );
  const searchBox = useRef<HTMLInputElement>(null);

  const move = (by: number) => {
    const next = Math.max(0, Math.min(rows.length - 1, selected === null ? 0 : selected + by));
    setSelected(next);
    document.getElementById(`job-row-${next}`)?.scrollIntoView({ block: "nearest" });
  };
  const current = selected === null ? undefined : rows[selected];
  const open = () => {
    if (current) navigate(`/jobs/${current.id}`);
  };
  useShortcuts({
    j: () => move(1),
    k: () => move(-1),
    Enter: open,
    o: open,
    x: () => current && choice.toggle(current.id),
    n: () => navigate("/submit"),
    "/": () => searchBox.current?.focus(),
  });

  const filtered = group !== "all" || search !== "" || tag !== "";
  return (
    <Page title="Jobs">
      <div className="filters">
        <div className="search">
          <Icon name="search" />
          <input
            ref={searchBox}
            type="search"
            className="input"
            aria-label="Search jobs by name"
            placeholder="Search by name"
            value={search}
            onChange={(event) => setSearch(event.target.value)}
          />
        </div>
        <Segments label="Status" value={group} options={GROUP_OPTIONS} onValue={setGroup} />
        {tag !== "" && (
          <Button small icon="close" onClick={() => setTag("")}>
            {`Tag ${tag}`}
          </Button>
        )}
      </div>
      <div className="panel panel--flush">
        {jobs.isPending && <Loading lines={8} />}
        {jobs.isError && rows.length === 0 && <Failed error={jobs.error} retry={() => void jobs.refetch()} />}
        {jobs.isSuccess && rows.length === 0 && <Nothing filtered={filtered} />}
        {rows.length > 0 && <JobsTable jobs={rows} selected={selected} choice={choice} onTag={setTag} />}
        <Pager after={after} next={jobs.data?.next_cursor ?? null} />
      </div>
      <BulkBar
        jobs={rows.filter((job) => choice.has(job.id))}
        choice={choice}
        whole={whole}
        more={choice.chosen.length === rows.length && (after !== "" || (jobs.data?.has_more ?? false))}
      />
      {rows.length > 0 && (
        <p className="small muted keys" aria-hidden="true">
          <kbd>j</kbd> <kbd>k</kbd> move · <kbd>Enter</kbd> open · <kbd>x</kbd> select ·{" "}
          <kbd>/</kbd> search · <kbd>n</kbd> new job
        </p>
      )}
    </Page>
  );
}

/** Pages by cursor, in the address: the browser's own way back works. */
function Pager({ after, next }: { after: string; next: string | null }) {
  const [params] = useSearchParams();
  if (after === "" && next === null) return null;
  const to = (cursor: string | null) => {
    const target = new URLSearchParams(params);
    if (cursor === null) target.delete("after");
    else target.set("after", cursor);
    return `/jobs?${target.toString()}`;
  };
  return (
    <nav className="pager" aria-label="Pages of jobs">
      {after !== "" && (
        <ButtonLink href={to(null)} small icon="back">
          Newest
        </ButtonLink>
      )}
      {next !== null && (
        <ButtonLink href={to(next)} small icon="next">
          Older
        </ButtonLink>
      )}
    </nav>
  );
}

function Nothing({ filtered }: { filtered: boolean }) {
  if (filtered) {
    return (
      <Empty icon="search" title="No job fits">
        <p>Choose another status, or search for something else.</p>
      </Empty>
    );
  }
  return (
    <Empty icon="jobs" title="Train a first model">
      <p>
        Choose a data set and a model. Every sample’s gradient is clipped, and what the privacy guarantee costs is shown
        before anything runs.
      </p>
      <ButtonLink href="/submit" look="primary" icon="plus">
        New job
      </ButtonLink>
    </Empty>
  );
}
