import { useState } from "react";
import { FieldError } from "@/components/ui/Field";
import { isObject } from "@/lib/pointer";
import type { Json, JsonObject } from "@/lib/wire";

/** The specification as text. What is not yet JSON is kept here and not planned. */
export function JsonEditor({
  draft,
  onDraft,
  onValid,
}: {
  draft: JsonObject;
  onDraft: (draft: JsonObject) => void;
  onValid: (valid: boolean) => void;
}) {
  const [text, setText] = useState(() => JSON.stringify(draft, null, 2));
  const [error, setError] = useState<string | null>(null);
  const change = (next: string) => {
    setText(next);
    const parsed = parse(next);
    setError(typeof parsed === "string" ? parsed : null);
    onValid(typeof parsed !== "string");
    if (typeof parsed !== "string") onDraft(parsed);
  };
  return (
    <div className="form-section">
      <label className="field">
        <span className="visually-hidden">Specification as JSON</span>
        <textarea
          className="input input--mono"
          rows={38}
          spellCheck={false}
          aria-invalid={error !== null}
          value={text}
          onChange={(event) => change(event.target.value)}
        />
      </label>
      <div aria-live="polite">{error !== null && <FieldError>{error}</FieldError>}</div>
    </div>
  );
}

function parse(text: string): JsonObject | string {
  try {
    const value = JSON.parse(text) as Json;
    return isObject(value) ? value : "A specification is an object: { … }";
  } catch (fault) {
    return `This is not JSON yet: ${fault instanceof Error ? fault.message : "it cannot be read"}`;
  }
}
