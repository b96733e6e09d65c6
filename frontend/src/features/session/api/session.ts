/** Signing in, by key or by a link that the service printed, and out. */
import { useMutation, useQueryClient } from "@tanstack/react-query";
import { useEffect, useRef } from "react";
import { api, setCsrfToken, take } from "@/lib/api";
import type { Session } from "@/lib/wire";

type Proof = { api_key: string } | { token: string };

export function useSignIn() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (proof: Proof): Promise<Session> => take(api.POST("/v1/session", { body: proof })),
    onSuccess: (session) => {
      setCsrfToken(session.csrf_token);
      client.setQueryData(["session"], session);
    },
  });
}

export function useSignOut() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: () => take(api.DELETE("/v1/session")),
    onSuccess: () => {
      setCsrfToken(null);
      client.setQueryData(["session"], null);
      // What was read with the old key is not for the next one.
      client.removeQueries({ predicate: (query) => query.queryKey[0] !== "session" });
    },
  });
}

const LINK = /^#sign-in=([\w.~-]+)$/;

/** Use a one-time link, whose token is in the fragment and so was never sent; the address is cleared at once. */
export function useSignInLink(): { pending: boolean; error: unknown } {
  const signIn = useSignIn();
  const token = useRef(LINK.exec(window.location.hash)?.[1]);
  const { mutate } = signIn;
  useEffect(() => {
    if (token.current === undefined) return;
    const used = token.current;
    token.current = undefined;
    window.history.replaceState(null, "", window.location.pathname + window.location.search);
    mutate({ token: used });
  }, [mutate]);
  const waiting = LINK.test(window.location.hash);
  return { pending: waiting || signIn.isPending, error: signIn.error };
}
