import { useState, type SyntheticEvent } from "react";
import { useLocation } from "wouter";
import { Segments } from "@/components/ui/Field";
import { getAt, setAt } from "@/lib/pointer";
import type { Dataset, Job, JsonObject, Kind } from "@/lib/wire";
import { problemsByPointer, usePlan, useSubmit } from "../api/submit";
import { errorAt, withoutPlace, type Form } from "./form";
import { EvaluationSection, LabelsSection } from "./EndSections";
import { JsonEditor } from "./JsonEditor";
import { ModelSection } from "./ModelSection";
import { OptimizerSection } from "./OptimizerSection";
import { PlanPanel } from "./PlanPanel";
import { PrivacySection } from "./PrivacySection";
import { DataSection, TrainingSection } from "./StartSections";

type View = "form" | "json";
const VIEWS = [
  { value: "form", label: "Form" },
  { value: "json", label: "JSON" },
] as const;

export function Editor({
  initial,
  datasets,
  models,
  modules,
  parent,
}: {
  initial: JsonObject;
  datasets: readonly Dataset[];
  models: readonly Kind[];
  modules: readonly Kind[];
  /** The job that is cloned. */
  parent: Job | undefined;
}) {
  const [draft, setDraft] = useState(initial);
  const [view, setView] = useState<View>("form");
  const [jsonValid, setJsonValid] = useState(true);
  const [, navigate] = useLocation();
  const planned = usePlan(jsonValid ? draft : null);
  const submit = useSubmit(parent);
  const problems = problemsByPointer(planned.error ?? submit.error);
  const form: Form = {
    draft,
    setDraft,
    get: (pointer) => getAt(draft, pointer),
    set: (pointer, value) => setDraft((before) => setAt(before, pointer, value)),
    errorOf: (pointer) => errorAt(problems, pointer),
  };
  const dataset = datasets.find((one) => one.name === draft.dataset || one.id === draft.dataset);
  const send = (event: SyntheticEvent) => {
    event.preventDefault();
    submit.mutate(draft, { onSuccess: (job) => navigate(`/jobs/${job.id}`) });
  };
  const show = (next: View) => {
    setView(next);
    setJsonValid(true);
  };

  return (
    <form className="submit" onSubmit={send} noValidate>
      <div className="panel">
        <div className="form-bar">
          <Segments<View> label="Edit as" value={view} options={VIEWS} onValue={show} />
        </div>
        {view === "json" ? (
          <JsonEditor draft={draft} onDraft={setDraft} onValid={setJsonValid} />
        ) : (
          <>
            <DataSection form={form} datasets={datasets} dataset={dataset} />
            <ModelSection form={form} models={models} dataset={dataset} />
            <PrivacySection form={form} dataset={dataset} />
            <TrainingSection form={form} />
            <OptimizerSection form={form} modules={modules} />
            <EvaluationSection form={form} />
            <LabelsSection form={form} />
          </>
        )}
      </div>
      <PlanPanel
        draft={draft}
        planned={planned}
        problems={view === "json" ? [...problems] : withoutPlace(problems)}
        blocked={!jsonValid}
        busy={submit.isPending}
        error={submit.error}
      />
    </form>
  );
}
