/** Names for the api's objects; their shapes are generated into client/schema.d.ts. */
import type { components } from "@/client/schema";

type Schemas = components["schemas"];

export type Job = Schemas["Job"];
export type JobStatus = Schemas["JobStatus"];
export type Plan = Schemas["Plan"];
export type JobProgressed = Schemas["JobProgressed"];
export type JobEvent = Schemas["Event"];
export type MetricSeries = Schemas["MetricSeries"];
export type LogLine = Schemas["LogLine"];
export type Artifact = Schemas["Artifact"];
export type Attempt = Schemas["Attempt"];
export type Checkpoint = Schemas["Checkpoint"];
export type BulkVerb = Schemas["BulkChange"]["verb"];
export type JobFilter = Schemas["BulkChange"]["filter"];
export type BulkResult = Schemas["BulkResult"];
export type Dataset = Schemas["Dataset"];
export type DatasetSchema = Dataset["schema"];
export type Feature = DatasetSchema["features"][number];
export type Origin = NonNullable<Feature["origin"]>;
export type Visibility = Dataset["population"]["visibility"];
export type Kind = Schemas["KindDescription"];
export type Worker = Schemas["Worker"];
export type Queue = Schemas["Queue"];
export type ApiKey = Schemas["ApiKey"];
export type Role = ApiKey["role"];
export type Session = Schemas["Session"];
export type ProblemDocument = Schemas["ProblemDocument"];

/** Any JSON value; specifications are edited as plain JSON. */
export type Json = string | number | boolean | null | Json[] | { [key: string]: Json };
export type JsonObject = Record<string, Json>;

const TERMINAL: readonly JobStatus[] = ["succeeded", "failed", "cancelled"];

export function isTerminal(status: JobStatus): boolean {
  return TERMINAL.includes(status);
}
