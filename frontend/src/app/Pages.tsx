import { Redirect, Route, Switch } from "wouter";
import { ButtonLink } from "@/components/ui/Button";
import { Page } from "@/components/ui/Page";
import { Empty } from "@/components/ui/State";
import { DatasetPage } from "@/features/datasets/components/DatasetPage";
import { DatasetsPage } from "@/features/datasets/components/DatasetsPage";
import { UploadPage } from "@/features/datasets/components/UploadPage";
import { WorkersPage } from "@/features/fleet/components/WorkersPage";
import { JobPage } from "@/features/job/components/JobPage";
import { JobsPage } from "@/features/jobs/components/JobsPage";
import { KeysPage } from "@/features/keys/components/KeysPage";
import { ModelsPage } from "@/features/models/components/ModelsPage";
import { SubmitPage } from "@/features/submit/components/SubmitPage";
import type { Session } from "@/lib/wire";

export function Pages({ session }: { session: Session }) {
  return (
    <Switch>
      <Route path="/">
        <Redirect to="/jobs" replace />
      </Route>
      <Route path="/jobs" component={JobsPage} />
      <Route path="/jobs/:id">{({ id }) => <JobPage id={id} />}</Route>
      <Route path="/submit" component={SubmitPage} />
      <Route path="/datasets" component={DatasetsPage} />
      <Route path="/datasets/new" component={UploadPage} />
      <Route path="/datasets/:id">{({ id }) => <DatasetPage id={id} role={session.role} />}</Route>
      <Route path="/models" component={ModelsPage} />
      <Route path="/workers" component={WorkersPage} />
      {session.role === "owner" && <Route path="/keys" component={KeysPage} />}
      <Route>
        <Page title="Not found">
          <Empty icon="search" title="There is no such page">
            <p>The address may be old, or mistyped.</p>
            <ButtonLink href="/jobs">Go to the jobs</ButtonLink>
          </Empty>
        </Page>
      </Route>
    </Switch>
  );
}
