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

/** A choice among `list`; what is no longer in the list is not chosen. */
export function useChoice(list: readonly string[]): Choice {
  const [ids, setIds] = useState<Ids>(new Set());
  const anchor = useRef<string | null>(null);
  const chosen = list.filter((id) => ids.has(id));
  return {
    chosen,
    has: (id) => ids.has(id),
    toggle: (id, range = false) => {
      const from = range ? anchor.current : null;
      anchor.current = id;
      setIds((before) => toggled(before, list, id, from));
    },
    toggleAll: () => setIds(new Set(chosen.length === list.length ? [] : list)),
    clear: () => setIds(new Set()),
  };
}
