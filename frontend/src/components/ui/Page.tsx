import type { ReactNode } from "react";
import { Link } from "wouter";
import { Icon } from "@/components/ui/Icon";
import { useTitle } from "@/lib/hooks";

/** A page: title, one sentence, actions, and what it is about. */
export function Page({
  title,
  about,
  back,
  actions,
  children,
}: {
  title: string;
  about?: ReactNode;
  back?: { href: string; label: string };
  actions?: ReactNode;
  children: ReactNode;
}) {
  useTitle(title);
  return (
    <div className="page">
      <header className="page-head">
        <div className="page-head__text">
          {back && (
            <Link href={back.href} className="crumb">
              <Icon name="back" size={13} />
              {back.label}
            </Link>
          )}
          <h1>{title}</h1>
          {about !== undefined && <div className="muted">{about}</div>}
        </div>
        {actions !== undefined && <div className="row">{actions}</div>}
      </header>
      {children}
    </div>
  );
}

export function Panel({
  title,
  note,
  actions,
  flush = false,
  children,
}: {
  title?: string;
  note?: ReactNode;
  actions?: ReactNode;
  /** Without padding: the content is a table or a list that reaches the edges. */
  flush?: boolean;
  children: ReactNode;
}) {
  return (
    <section className={flush ? "panel panel--flush" : "panel"}>
      {title !== undefined && (
        <header className="panel__head" style={flush ? { paddingBottom: "0.5rem" } : undefined}>
          <div>
            <h2>{title}</h2>
            {note !== undefined && <p>{note}</p>}
          </div>
          {actions !== undefined && <div className="row">{actions}</div>}
        </header>
      )}
      {flush ? children : <div className="panel__body">{children}</div>}
    </section>
  );
}

/** Names and values. */
export function Facts({ items, list = false }: { items: readonly (readonly [string, ReactNode])[]; list?: boolean }) {
  return (
    <dl className={list ? "facts facts--list" : "facts"}>
      {items.map(([name, value]) => (
        <div key={name}>
          <dt>{name}</dt>
          <dd>{value}</dd>
        </div>
      ))}
    </dl>
  );
}

export function Stat({ label, value, note }: { label: string; value: ReactNode; note?: ReactNode }) {
  return (
    <div className="stat">
      <span className="small muted">{label}</span>
      <span className="stat__value">{value}</span>
      {note !== undefined && <span className="small muted">{note}</span>}
    </div>
  );
}
