/** Which rows of a list are chosen: by id, so that the choice outlives rows that come, go and move. */
import { useRef, useState } from "react";

export interface Choice {
  /** The chosen ones of the list, in its order. */
  chosen: readonly string[];
  has: (id: string) => boolean;
  /** Choose one or leave it; with `range` also all that lie between it and the one before. */
  toggle: (id: string, range?: boolean) => void;
  /** All or none. */
  toggleAll: () => void;
  /** Whether it goes beyond the list: everything that the same question finds, on whatever page. */
  beyond: boolean;
  /** Choose everything that the question finds. */
  goBeyond: () => void;
  clear: () => void;
}

type Ids = ReadonlySet<string>;

export function toggled(chosen: Ids, list: readonly string[], id: string, anchor: string | null): Ids {
  const next = new Set(chosen);
  const from = anchor === null ? -1 : list.indexOf(anchor);
  const to = list.indexOf(id);
  const range = from < 0 ? [id] : list.slice(Math.min(from, to), Math.max(from, to) + 1);
  for (const one of range) {
    if (chosen.has(id)) next.delete(one);
    else next.add(one);
  }
  return next;
}

/** A choice among `list`, the part at hand of what `question` finds; what is no longer in it is not chosen. */
export function useChoice(list: readonly string[], question: string): Choice {
  const [ids, setIds] = useState<Ids>(new Set());
  const [everythingOf, setEverythingOf] = useState<string | null>(null);
  const anchor = useRef<string | null>(null);
  const beyond = everythingOf === question;
  // Whoever asks for something else, and comes back, has to choose everything anew.
  if (everythingOf !== null && !beyond) setEverythingOf(null);
  const chosen = beyond ? list : list.filter((id) => ids.has(id));
  const choose = (next: Ids) => {
    setEverythingOf(null);
    setIds(next);
  };
  return {
    chosen,
    has: (id) => beyond || ids.has(id),
    toggle: (id, range = false) => {
      const from = range ? anchor.current : null;
      anchor.current = id;
      choose(toggled(beyond ? new Set(list) : ids, list, id, from));
    },
    toggleAll: () => choose(new Set(chosen.length === list.length ? [] : list)),
    beyond,
    goBeyond: () => setEverythingOf(question),
    clear: () => choose(new Set()),
  };
}
