import { QueryClientProvider, useQuery } from "@tanstack/react-query";
import { Component, useState, type ReactNode } from "react";
import { Offline } from "@/app/Offline";
import { Pages } from "@/app/Pages";
import { Shell } from "@/app/Shell";
import { Button } from "@/components/ui/Button";
import { Empty, Failed, Loading } from "@/components/ui/State";
import { SignIn } from "@/features/session/components/SignIn";
import { useSignInLink } from "@/features/session/api/session";
import { createQueryClient, sessionQuery } from "@/lib/queries";

export function App() {
  const [client] = useState(createQueryClient);
  return (
    <QueryClientProvider client={client}>
      <Boundary>
        <Gate />
      </Boundary>
      <Offline />
    </QueryClientProvider>
  );
}

/** No session, no page: whoever is not signed in sees the form alone. */
function Gate() {
  const link = useSignInLink();
  const session = useQuery({ ...sessionQuery, enabled: !link.pending });
  if (link.pending || session.isPending) return <Loading />;
  if (session.isError) return <Failed error={session.error} retry={() => void session.refetch()} />;
  if (session.data === null) return <SignIn linkError={link.error} />;
  return (
    <Shell session={session.data}>
      <Pages session={session.data} />
    </Shell>
  );
}

/** A fault of the dashboard itself must not leave a blank page. */
class Boundary extends Component<{ children: ReactNode }, { broken: boolean }> {
  override state = { broken: false };

  static getDerivedStateFromError() {
    return { broken: true };
  }

  override render() {
    if (!this.state.broken) return this.props.children;
    return (
      <Empty icon="warning" title="The dashboard had a fault">
        <p>Your jobs are not affected. Reload the page; if it happens again, tell your administrator what you did.</p>
        <Button look="primary" onClick={() => window.location.reload()}>
          Reload
        </Button>
      </Empty>
    );
  }
}
