/** Choices that live in the address, so that a link shows what its sender saw. */
import { useCallback } from "react";
import { useSearchParams } from "wouter";

/** One search parameter; the fallback itself is not written. */
export function useParam(name: string, fallback = ""): [string, (value: string) => void] {
  const [params, setParams] = useSearchParams();
  const set = useCallback(
    (value: string) => {
      setParams(
        (before) => {
          const next = new URLSearchParams(before);
          // Another choice is another list: its pages start anew.
          next.delete("after");
          if (value === fallback) next.delete(name);
          else next.set(name, value);
          return next;
        },
        { replace: true },
      );
    },
    [name, fallback, setParams],
  );
  return [params.get(name) ?? fallback, set];
}
