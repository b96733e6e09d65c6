import { useQuery } from "@tanstack/react-query";
import { useState, type SyntheticEvent } from "react";
import { Button } from "@/components/ui/Button";
import { Chip } from "@/components/ui/Chip";
import { CopyButton } from "@/components/ui/CopyButton";
import { Confirm, Dialog } from "@/components/ui/Dialog";
import { Choices, TextField } from "@/components/ui/Field";
import { Page, Panel } from "@/components/ui/Page";
import { Failed, Loading, Note, ProblemNote } from "@/components/ui/State";
import { Ago } from "@/components/ui/Time";
import type { ApiKey, Role } from "@/lib/wire";
import { keysQuery, useCreateKey, useRevokeKey } from "../api/keys";

const ROLES: readonly { value: Role; label: string; note: string }[] = [
  { value: "owner", label: "Owner", note: "Data, schemas, exact numbers, keys" },
  { value: "analyst", label: "Analyst", note: "Submits jobs, sees what is released" },
  { value: "operator", label: "Operator", note: "Machines and queues, no data" },
];

export function KeysPage() {
  const keys = useQuery(keysQuery);
  const [creating, setCreating] = useState(false);
  const [revoking, setRevoking] = useState<ApiKey | null>(null);
  const revoke = useRevokeKey();
  return (
    <Page
      title="API keys"
      about="Every request needs a key. Give each person and each script one of its own, so that it can be revoked alone."
      actions={
        <Button look="primary" icon="plus" onClick={() => setCreating(true)}>
          New key
        </Button>
      }
    >
      <Panel flush>
        {keys.isPending && <Loading lines={3} />}
        {keys.isError && !keys.data && <Failed error={keys.error} retry={() => void keys.refetch()} />}
        {keys.data && keys.data.length > 0 && <Keys keys={keys.data} onRevoke={setRevoking} />}
      </Panel>
      <Dialog open={creating} title="New key" onClose={() => setCreating(false)}>
        <Create onClose={() => setCreating(false)} />
      </Dialog>
      <Confirm
        open={revoking !== null}
        title={`Revoke “${revoking?.name ?? ""}”?`}
        verb="Revoke the key"
        busy={revoke.isPending}
        error={revoke.error}
        onConfirm={() => {
          if (revoking) revoke.mutate(revoking.id, { onSuccess: () => setRevoking(null) });
        }}
        onClose={() => {
          setRevoking(null);
          revoke.reset();
        }}
      >
        <p>Whoever uses it is refused at once, and browsers that signed in with it are signed out.</p>
      </Confirm>
    </Page>
  );
}

function Keys({ keys, onRevoke }: { keys: readonly ApiKey[]; onRevoke: (key: ApiKey) => void }) {
  return (
    <table className="table table--cards">
      <thead>
        <tr>
          <th scope="col">Name</th>
          <th scope="col">Role</th>
          <th scope="col">Begins with</th>
          <th scope="col">Created</th>
          <th scope="col">Last used</th>
          <th scope="col">
            <span className="visually-hidden">Revoke</span>
          </th>
        </tr>
      </thead>
      <tbody>
        {keys.map((key) => (
          <tr key={key.id}>
            <td className="wide">
              <strong>{key.name}</strong>
            </td>
            <td data-label="Role">
              <Chip>{key.role}</Chip>
            </td>
            <td data-label="Begins with">
              <code>{key.prefix}…</code>
            </td>
            <td data-label="Created">
              <Ago at={key.created_at} />
            </td>
            <td data-label="Last used">{key.last_used_at ? <Ago at={key.last_used_at} /> : "never"}</td>
            <td className="end">
              <Button small onClick={() => onRevoke(key)}>
                Revoke
              </Button>
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function Create({ onClose }: { onClose: () => void }) {
  const [name, setName] = useState("");
  const [role, setRole] = useState<Role>("analyst");
  const create = useCreateKey();
  if (create.data?.secret) return <Secret secret={create.data.secret} onClose={onClose} />;
  const send = (event: SyntheticEvent) => {
    event.preventDefault();
    create.mutate({ name: name.trim(), role });
  };
  return (
    <form className="stack" onSubmit={send}>
      <TextField label="Name" required hint="Whose key it is, or what for" value={name} onValue={setName} />
      <Choices name="role" label="Role" value={role} options={ROLES} onValue={(next) => setRole(next as Role)} />
      <ProblemNote error={create.error} />
      <div className="dialog__actions">
        <Button onClick={onClose}>Close</Button>
        <Button type="submit" look="primary" busy={create.isPending} disabled={name.trim() === ""}>
          Make the key
        </Button>
      </div>
    </form>
  );
}

function Secret({ secret, onClose }: { secret: string; onClose: () => void }) {
  return (
    <div className="stack">
      <Note tone="good">
        <strong>The key was made. It is shown only now.</strong>
        <code>{secret}</code>
      </Note>
      <div className="dialog__actions">
        <CopyButton text={secret}>Copy the key</CopyButton>
        <Button look="primary" onClick={onClose}>
          Done
        </Button>
      </div>
    </div>
  );
}
