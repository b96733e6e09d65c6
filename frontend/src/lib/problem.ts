/** What can go wrong with a request, in words for people. */
import type { ProblemDocument } from "@/lib/wire";

export interface FieldProblem {
  pointer: string;
  detail: string;
}

/** The api refused a request; `message` is its own sentence. */
export class ProblemError extends Error {
  readonly status: number;
  readonly code: string;
  readonly fields: readonly FieldProblem[];
  readonly row: number | null;
  readonly column: string | null;
  readonly requestId: string | null;

  constructor(document: Partial<ProblemDocument> & { status: number }) {
    super(document.detail ?? document.title ?? fallback(document.status));
    this.name = "ProblemError";
    this.status = document.status;
    this.code = document.code ?? "unknown";
    this.fields = document.errors ?? [];
    this.row = document.row ?? null;
    this.column = document.column ?? null;
    this.requestId = document.request_id ?? null;
  }
}

/** The api could not be reached at all. */
export class OfflineError extends Error {
  constructor() {
    super("Clipwise cannot be reached. It will be tried again.");
    this.name = "OfflineError";
  }
}

/** Read the body of an answer that is not a success, whatever it is. */
export function problemFrom(status: number, body: unknown): ProblemError {
  if (typeof body === "object" && body !== null && "detail" in body && typeof body.detail === "string") {
    return new ProblemError({ ...(body as Partial<ProblemDocument>), status });
  }
  return new ProblemError({ status, detail: fallback(status) });
}

/** One sentence about any error. */
export function sentence(error: unknown): string {
  if (error instanceof ProblemError || error instanceof OfflineError) return error.message;
  return "Something unexpected happened in the dashboard. Reload the page; if it stays, tell your administrator.";
}

export function hasStatus(error: unknown, status: number): boolean {
  return error instanceof ProblemError && error.status === status;
}

function fallback(status: number): string {
  if (status === 401) return "You are not signed in.";
  if (status === 403) return "Your key may not do this.";
  if (status === 404) return "This does not exist, or no longer.";
  if (status === 413) return "This is larger than the service accepts.";
  if (status === 429) return "Too many requests. Wait a moment and try again.";
  if (status >= 500) return "The service had a fault. Try again in a moment.";
  return "The service refused the request.";
}
