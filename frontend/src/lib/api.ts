/** The one client of the api: generated types, CSRF header, problems as exceptions. */
import createClient, { type Middleware } from "openapi-fetch";
import type { paths } from "@/client/schema";
import { setReachable } from "@/lib/connection";
import { OfflineError, problemFrom } from "@/lib/problem";

let csrfToken: string | null = null;

/** Remember the token that changes must carry; it comes with the session. */
export function setCsrfToken(token: string | null): void {
  csrfToken = token;
}

export function csrfHeader(): Record<string, string> {
  return csrfToken === null ? {} : { "X-CSRF-Token": csrfToken };
}

const guard: Middleware = {
  onRequest({ request }) {
    if (request.method !== "GET") {
      for (const [name, value] of Object.entries(csrfHeader())) request.headers.set(name, value);
    }
    return request;
  },
  onResponse() {
    setReachable(true);
  },
  onError({ error }) {
    if (error instanceof DOMException && error.name === "AbortError") return undefined;
    setReachable(false);
    return new OfflineError();
  },
};

export const api = createClient<paths>({ baseUrl: "" });
api.use(guard);

interface Answer<T> {
  data?: T;
  error?: unknown;
  response: Response;
}

/** The data of a successful answer; anything else is thrown as a `ProblemError`. */
export async function take<T>(call: Promise<Answer<T>>): Promise<T> {
  const { data, error, response } = await call;
  if (!response.ok || error !== undefined) throw problemFrom(response.status, error);
  // An answer without a body (204) has no data, and its type says so.
  return data as T;
}

/** A key that makes a create safe to repeat. */
export function idempotencyKey(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
