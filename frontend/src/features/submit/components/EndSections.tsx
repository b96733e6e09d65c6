import { useState } from "react";
import { TextField } from "@/components/ui/Field";
import { NumberField } from "@/components/ui/NumberField";
import { isObject } from "@/lib/pointer";
import type { Form } from "./form";
import { Section } from "./Section";

export function EvaluationSection({ form }: { form: Form }) {
  return (
    <Section title="Evaluation" about="Some rows are held out and never trained on.">
      <div className="fields">
        <NumberField
          label="Share of rows held out"
          hint="From 0, below 1"
          value={form.get("/evaluation/fraction")}
          error={form.errorOf("/evaluation/fraction")}
          onValue={(next) => form.set("/evaluation/fraction", next ?? undefined)}
        />
        <NumberField
          label="Every so many steps"
          optional
          placeholder="at the end only"
          value={form.get("/evaluation/every_steps")}
          error={form.errorOf("/evaluation/every_steps")}
          onValue={(next) => form.set("/evaluation/every_steps", next)}
        />
      </div>
    </Section>
  );
}

export function LabelsSection({ form }: { form: Form }) {
  const given = form.get("/tags");
  const [tags, setTags] = useState(() => tagText(isObject(given) ? given : {}));
  const queue = form.get("/resources/queue");
  return (
    <Section title="Where, how long, and tags">
      <div className="fields">
        <TextField
          label="Queue"
          value={typeof queue === "string" ? queue : ""}
          error={form.errorOf("/resources/queue")}
          onValue={(next) => form.set("/resources/queue", next)}
        />
        <NumberField
          label="Longest runtime, in seconds"
          value={form.get("/limits/max_runtime_seconds")}
          error={form.errorOf("/limits/max_runtime_seconds")}
          onValue={(next) => form.set("/limits/max_runtime_seconds", next ?? undefined)}
        />
        <TextField
          label="Tags"
          optional
          hint="key: value, separated by commas"
          placeholder="team: cardiology"
          value={tags}
          error={form.errorOf("/tags")}
          onValue={(next) => {
            setTags(next);
            form.set("/tags", tagsOf(next));
          }}
        />
      </div>
    </Section>
  );
}

function tagText(tags: Record<string, unknown>): string {
  return Object.entries(tags)
    .map(([key, value]) => `${key}: ${String(value)}`)
    .join(", ");
}

function tagsOf(text: string): Record<string, string> {
  const pairs = text
    .split(",")
    .map((pair) => pair.trim())
    .filter(Boolean)
    .map((pair): [string, string] => {
      const [key = "", ...value] = pair.split(":");
      return [key.trim(), value.join(":").trim()];
    });
  return Object.fromEntries(pairs);
}
