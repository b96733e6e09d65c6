import { useState, type SyntheticEvent } from "react";
import { Button } from "@/components/ui/Button";
import { TextField } from "@/components/ui/Field";
import { Mark } from "@/components/ui/Icon";
import { Note } from "@/components/ui/State";
import { useSignIn } from "../api/session";
import { useTitle } from "@/lib/hooks";
import { hasStatus, sentence } from "@/lib/problem";

export function SignIn({ linkError }: { linkError: unknown }) {
  useTitle("Sign in");
  const [key, setKey] = useState("");
  const signIn = useSignIn();
  const submit = (event: SyntheticEvent) => {
    event.preventDefault();
    signIn.mutate({ api_key: key.trim() });
  };
  return (
    <main className="signin">
      <div className="signin__card">
        <div className="brand">
          <Mark size={32} />
          Clipwise
        </div>
        <p className="muted">Private training on your own machines. Sign in to see your jobs and data sets.</p>
        {linkError !== null && linkError !== undefined && !signIn.isError && (
          <Note tone="warn">
            <strong>This sign-in link no longer works.</strong>
            <span>
              A link signs in once, within minutes. Print a new one with <code>clipwise signin</code>, or paste a key.
            </span>
          </Note>
        )}
        <form onSubmit={submit}>
          <TextField
            label="API key"
            type="password"
            autoComplete="current-password"
            required
            spellCheck={false}
            value={key}
            onValue={setKey}
            error={signIn.isError ? refusal(signIn.error) : undefined}
          />
          <Button type="submit" look="primary" busy={signIn.isPending} disabled={key.trim() === ""}>
            {signIn.isPending ? "Signing in…" : "Sign in"}
          </Button>
        </form>
        <Note>
          <strong>Where is my key?</strong>
          <span>
            On the machine that runs Clipwise, <code>clipwise signin</code> prints a link that signs this browser in. The
            first key itself is in the file <code>api_key</code> of its data folder. Otherwise ask an owner for a key of
            your own.
          </span>
        </Note>
      </div>
    </main>
  );
}

function refusal(error: unknown): string {
  return hasStatus(error, 401) ? "This key is not known here. Check that all of it was pasted." : sentence(error);
}
