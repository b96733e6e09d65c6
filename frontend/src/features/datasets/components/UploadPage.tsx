import { useState, type DragEvent, type SyntheticEvent } from "react";
import { useLocation } from "wouter";
import { Button } from "@/components/ui/Button";
import { Choices, TextField } from "@/components/ui/Field";
import { Icon } from "@/components/ui/Icon";
import { NumberField } from "@/components/ui/NumberField";
import { Page } from "@/components/ui/Page";
import { Progress } from "@/components/ui/Progress";
import { ProblemNote } from "@/components/ui/State";
import { bytes, percent } from "@/lib/format";
import { ProblemError } from "@/lib/problem";
import type { Json, Visibility } from "@/lib/wire";
import { useUpload } from "../api/datasets";

export function UploadPage() {
  const [, navigate] = useLocation();
  const [file, setFile] = useState<File | null>(null);
  const [name, setName] = useState("");
  const [visibility, setVisibility] = useState<Visibility | "">("");
  const [maxRows, setMaxRows] = useState<Json>(null);
  const [target, setTarget] = useState("");
  const upload = useUpload();

  const choose = (chosen: File) => {
    setFile(chosen);
    if (name === "") setName(chosen.name.replace(/\.(csv|tsv|txt|parquet|npz)$/i, ""));
    upload.reset();
  };
  const rowsAnswered = typeof maxRows === "number" && Number.isInteger(maxRows) && maxRows >= 1;
  const complete =
    file !== null && name.trim() !== "" && visibility !== "" && (visibility === "public" || rowsAnswered);
  const send = (event: SyntheticEvent) => {
    event.preventDefault();
    if (!complete) return;
    upload.mutate(
      {
        file,
        name: name.trim(),
        visibility,
        maxRowsPerPerson: typeof maxRows === "number" ? maxRows : null,
        target: target.trim(),
      },
      { onSuccess: (dataset) => navigate(`/datasets/${dataset.id}`) },
    );
  };
  const errorOf = (field: string) =>
    upload.error instanceof ProblemError
      ? upload.error.fields.find((one) => one.pointer === `/${field}`)?.detail
      : undefined;

  return (
    <Page
      title="Upload a data set"
      about="CSV, Parquet or NPZ, one row for each sample. A schema is proposed from the file; nothing is trained on it before you confirm."
      back={{ href: "/datasets", label: "Data sets" }}
    >
      <form className="panel" style={{ maxWidth: "46rem" }} onSubmit={send} noValidate>
        <div className="form-section">
          <Drop file={file} onFile={choose} disabled={upload.isPending} />
          <div className="fields">
            <TextField label="Name" required value={name} onValue={setName} error={errorOf("name")} />
            <TextField
              label="Column to predict"
              optional
              hint="It can still be changed afterwards"
              placeholder="guessed from the file"
              value={target}
              onValue={setTarget}
              error={errorOf("target")}
            />
          </div>
        </div>
        <div className="form-section">
          <Choices
            name="visibility"
            label="Are these rows about people, or otherwise secret?"
            value={visibility}
            options={[
              { value: "private", label: "Private", note: "Exact numbers, and jobs without a guarantee, are for owners only" },
              { value: "public", label: "Public", note: "Anyone may know these rows" },
            ]}
            onValue={(next) => setVisibility(next as Visibility)}
          />
          {visibility === "private" && (
            <NumberField
              label="How many rows can one person have at most?"
              required
              hint="1 if every row is another person. The guarantee is for each row; with more, every statement says so."
              value={maxRows}
              onValue={setMaxRows}
              error={
                errorOf("max_rows_per_person") ??
                (maxRows !== null && !rowsAnswered ? "A whole number, 1 or more" : undefined)
              }
            />
          )}
        </div>
        <div className="form-section">
          <ProblemNote error={upload.error} />
          {upload.isPending && <Sending share={upload.progress} />}
          <div className="row">
            <Button type="submit" look="primary" icon="upload" disabled={!complete} busy={upload.isPending}>
              {upload.isPending ? "Uploading…" : "Upload"}
            </Button>
            {upload.isPending && <Button onClick={upload.stop}>Stop</Button>}
          </div>
        </div>
      </form>
    </Page>
  );
}

function Sending({ share }: { share: number | null }) {
  const sent = share !== null && share >= 1;
  return (
    <div className="stack" role="status">
      <Progress value={sent ? null : share} label="Upload" />
      <span className="small muted">
        {sent ? "The file has arrived; reading its columns…" : `${percent(share ?? 0, 0)} sent`}
      </span>
    </div>
  );
}

function Drop({ file, onFile, disabled }: { file: File | null; onFile: (file: File) => void; disabled: boolean }) {
  const [over, setOver] = useState(false);
  const drop = (event: DragEvent) => {
    event.preventDefault();
    setOver(false);
    const dropped = event.dataTransfer.files[0];
    if (dropped && !disabled) onFile(dropped);
  };
  return (
    // Dropping is a convenience for a pointer; the input inside is what everyone can use.
    // eslint-disable-next-line jsx-a11y/no-noninteractive-element-interactions
    <label
      className={over ? "drop drop--over" : "drop"}
      onDragOver={(event) => {
        event.preventDefault();
        setOver(true);
      }}
      onDragLeave={() => setOver(false)}
      onDrop={drop}
    >
      <Icon name={file ? "file" : "upload"} size={28} />
      {file ? (
        <>
          <strong>{file.name}</strong>
          <span className="small muted">{bytes(file.size)} · choose another</span>
        </>
      ) : (
        <>
          <strong>Drop a file here, or choose one</strong>
          <span className="small muted">CSV, Parquet or NPZ</span>
        </>
      )}
      <input
        type="file"
        className="visually-hidden"
        accept=".csv,.tsv,.txt,.parquet,.npz"
        disabled={disabled}
        onChange={(event) => {
          const chosen = event.target.files?.[0];
          if (chosen) onFile(chosen);
        }}
      />
    </label>
  );
}
