import { Redirect, Route, Switch } from "wouter";
import { ButtonLink } from "@/components/ui/Button";
import { Page } from "@/components/ui/Page";
import { Empty } from "@/components/ui/State";
import { JobsPage } from "@/features/jobs/components/JobsPage";
import type { Session } from "@/lib/wire";

export function Pages({ session }: { session: Session }) {
  return (
    <Switch>
      <Route path="/">
        <Redirect to="/jobs" replace />
      </Route>
      <Route path="/jobs" component={JobsPage} />
      <Route>
        <Page title="Not found">
          <Empty icon="search" title="There is no such page">
            <p>The address may be old, or mistyped, {session.name}.</p>
            <ButtonLink href="/jobs">Go to the jobs</ButtonLink>
          </Empty>
        </Page>
      </Route>
    </Switch>
  );
}
