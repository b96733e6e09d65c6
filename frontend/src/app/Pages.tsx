import { lazy, Suspense, useEffect } from "react";
import { Redirect, Route, Switch } from "wouter";
import { ButtonLink } from "@/components/ui/Button";
import { Page } from "@/components/ui/Page";
import { Empty, Loading } from "@/components/ui/State";
import { JobsPage } from "@/features/jobs/components/JobsPage";
import type { Session } from "@/lib/wire";

// The list of jobs is what a visit begins with; every other page comes in a file of its own.
const load = {
  job: () => import("@/features/job/components/JobPage"),
  submit: () => import("@/features/submit/components/SubmitPage"),
  datasets: () => import("@/features/datasets/components/DatasetsPage"),
  upload: () => import("@/features/datasets/components/UploadPage"),
  dataset: () => import("@/features/datasets/components/DatasetPage"),
  models: () => import("@/features/models/components/ModelsPage"),
  workers: () => import("@/features/fleet/components/WorkersPage"),
  keys: () => import("@/features/keys/components/KeysPage"),
};
const JobPage = lazy(async () => ({ default: (await load.job()).JobPage }));
const SubmitPage = lazy(async () => ({ default: (await load.submit()).SubmitPage }));
const DatasetsPage = lazy(async () => ({ default: (await load.datasets()).DatasetsPage }));
const UploadPage = lazy(async () => ({ default: (await load.upload()).UploadPage }));
const DatasetPage = lazy(async () => ({ default: (await load.dataset()).DatasetPage }));
const ModelsPage = lazy(async () => ({ default: (await load.models()).ModelsPage }));
const WorkersPage = lazy(async () => ({ default: (await load.workers()).WorkersPage }));
const KeysPage = lazy(async () => ({ default: (await load.keys()).KeysPage }));

const IDLE_MILLISECONDS = 1500;

export function Pages({ session }: { session: Session }) {
  useEffect(() => {
    // Once the first page stands, the others are fetched: they then open at once, also without a connection.
    const timer = window.setTimeout(() => {
      for (const page of Object.values(load)) page().catch(() => undefined);
    }, IDLE_MILLISECONDS);
    return () => window.clearTimeout(timer);
  }, []);
  return (
    <Suspense fallback={<Loading lines={9} />}>
      <Switch>
        <Route path="/">
          <Redirect to={session.role === "operator" ? "/workers" : "/jobs"} replace />
        </Route>
        <Route path="/jobs" component={JobsPage} />
        <Route path="/jobs/:id">{({ id }) => <JobPage id={id} />}</Route>
        <Route path="/submit" component={SubmitPage} />
        <Route path="/datasets" component={DatasetsPage} />
        <Route path="/datasets/new" component={UploadPage} />
        <Route path="/datasets/:id">{({ id }) => <DatasetPage id={id} role={session.role} />}</Route>
        <Route path="/models" component={ModelsPage} />
        <Route path="/workers">
          <WorkersPage role={session.role} />
        </Route>
        {session.role === "owner" && <Route path="/keys" component={KeysPage} />}
        <Route>
          <Page title="Not found">
            <Empty icon="search" title="There is no such page">
              <p>The address may be old, or mistyped.</p>
              <ButtonLink href="/">Go to the first page</ButtonLink>
            </Empty>
          </Page>
        </Route>
      </Switch>
    </Suspense>
  );
}
