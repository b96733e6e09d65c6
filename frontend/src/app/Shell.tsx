import type { ReactNode } from "react";
import { Link, useLocation } from "wouter";
import { Button, ButtonLink } from "@/components/ui/Button";
import { Segments } from "@/components/ui/Field";
import { Icon, Mark, type IconName } from "@/components/ui/Icon";
import { useSignOut } from "@/features/session/api/session";
import { setTheme, useTheme, type Theme } from "@/lib/theme";
import type { Role, Session } from "@/lib/wire";

/** Operators look after the machines and see no data. */
const DATA: readonly Role[] = ["owner", "analyst"];

const PLACES: readonly { href: string; label: string; icon: IconName; roles?: readonly Role[] }[] = [
  { href: "/jobs", label: "Jobs", icon: "jobs", roles: DATA },
  { href: "/datasets", label: "Data sets", icon: "data", roles: DATA },
  { href: "/models", label: "Models", icon: "model" },
  { href: "/workers", label: "Workers", icon: "worker" },
  { href: "/keys", label: "API keys", icon: "key", roles: ["owner"] },
];

const THEMES: readonly { value: Theme; label: ReactNode; name: string }[] = [
  { value: "light", label: <Icon name="sun" size={14} />, name: "Light theme" },
  { value: "dark", label: <Icon name="moon" size={14} />, name: "Dark theme" },
  { value: "system", label: <Icon name="system" size={14} />, name: "Theme of the system" },
];

export function Shell({ session, children }: { session: Session; children: ReactNode }) {
  const theme = useTheme();
  const signOut = useSignOut();
  return (
    <div className="shell">
      <a href="#main" className="skip">
        Skip to content
      </a>
      <aside className="side">
        <Link href="/" className="brand">
          <Mark />
          Clipwise
        </Link>
        {DATA.includes(session.role) && (
          <ButtonLink href="/submit" look="primary" icon="plus" className="side__new">
            New job
          </ButtonLink>
        )}
        <Navigation role={session.role} />
        <div className="side__foot">
          <Segments label="Theme" value={theme} options={THEMES} onValue={setTheme} />
          <div className="who">
            <span className="who__name" title={`${session.name}, ${session.role}`}>
              {session.name} <span className="muted">· {session.role}</span>
            </span>
            <Button look="quiet" small icon="signOut" iconOnly busy={signOut.isPending} onClick={() => signOut.mutate()}>
              Sign out
            </Button>
          </div>
        </div>
      </aside>
      <main id="main" className="main" tabIndex={-1}>
        {children}
      </main>
    </div>
  );
}

function Navigation({ role }: { role: Role }) {
  const [location] = useLocation();
  return (
    <nav className="nav" aria-label="Main">
      {PLACES.filter((place) => place.roles?.includes(role) ?? true).map((place) => (
        <Link key={place.href} href={place.href} aria-current={location.startsWith(place.href) ? "page" : undefined}>
          <Icon name={place.icon} />
          {place.label}
        </Link>
      ))}
    </nav>
  );
}
