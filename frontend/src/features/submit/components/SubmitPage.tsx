import { useQuery } from "@tanstack/react-query";
import { useState } from "react";
import { Link } from "wouter";
import { ButtonLink } from "@/components/ui/Button";
import { Page } from "@/components/ui/Page";
import { Empty, Failed, Loading } from "@/components/ui/State";
import { useParam } from "@/lib/address";
import { nameOf } from "@/lib/outcome";
import { datasetsQuery, jobQuery, modelsQuery } from "@/lib/queries";
import type { Dataset, Job, JsonObject, Kind } from "@/lib/wire";
import { modulesQuery } from "../api/submit";
import { clone, firstDraft } from "./draft";
import { Editor } from "./Editor";

/** `?from=` copies a job, `?dataset=` and `?model=` choose what to start with. */
export function SubmitPage() {
  const [from] = useParam("from");
  const datasets = useQuery(datasetsQuery);
  const models = useQuery(modelsQuery);
  const modules = useQuery(modulesQuery);
  const source = useQuery({ ...jobQuery(from), enabled: from !== "" });
  const about = (
    <p>
      {source.data && from !== "" && (
        <>
          A clone of <Link href={`/jobs/${from}`}>{nameOf(source.data)}</Link>: change what should be different.{" "}
        </>
      )}
      The plan beside the form shows what the job will cost, before anything runs.
    </p>
  );
  const failed = [datasets, models, modules, source].find((query) => query.isError && query.data === undefined);
  // A data set that was confirmed a moment ago may not be in the list that is known.
  const [wanted] = useParam("dataset");
  const coming = datasets.isFetching && wanted !== "" && !datasets.data?.some((one) => isUsable(one, wanted));
  const ready = !coming && datasets.data && models.data && modules.data && (from === "" || source.data);
  return (
    <Page title="New job" about={about} back={{ href: "/jobs", label: "Jobs" }}>
      {failed ? (
        <Failed error={failed.error} retry={() => void failed.refetch()} />
      ) : ready ? (
        <Start key={from} datasets={datasets.data} models={models.data} modules={modules.data} source={source.data} />
      ) : (
        <Loading lines={9} />
      )}
    </Page>
  );
}

function isUsable(dataset: Dataset, wanted: string): boolean {
  return dataset.status === "ready" && (dataset.id === wanted || dataset.name === wanted);
}

function Start({
  datasets,
  models,
  modules,
  source,
}: {
  datasets: readonly Dataset[];
  models: readonly Kind[];
  modules: readonly Kind[];
  source: Job | undefined;
}) {
  const [wanted] = useParam("dataset");
  const [kind] = useParam("model");
  const usable = datasets.filter((dataset) => dataset.status === "ready");
  const chosen =
    usable.find((one) => isUsable(one, wanted)) ??
    usable.find((one) => models.find((model) => model.kind === kind)?.tasks.includes(one.schema.task)) ??
    usable.find((one) => one.name === "digits") ??
    usable[0];
  const [initial] = useState<JsonObject | null>(() =>
    source ? clone(source) : chosen ? firstDraft(chosen, models, kind === "" ? undefined : kind) : null,
  );
  if (initial === null) {
    return (
      <div className="panel">
        <Empty icon="data" title="There is no data set to train on">
          <p>Upload one first, and confirm its schema.</p>
          <ButtonLink href="/datasets/new" look="primary" icon="upload">
            Upload a data set
          </ButtonLink>
        </Empty>
      </div>
    );
  }
  return <Editor initial={initial} datasets={usable} models={models} modules={modules} parent={source} />;
}
