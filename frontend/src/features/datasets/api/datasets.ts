/** One data set: look at, upload, confirm, delete. */
import { queryOptions, useMutation, useQueryClient } from "@tanstack/react-query";
import { useRef, useState } from "react";
import { api, csrfHeader, idempotencyKey, take } from "@/lib/api";
import { setReachable } from "@/lib/connection";
import { OfflineError, problemFrom } from "@/lib/problem";
import type { Dataset, DatasetSchema, Visibility } from "@/lib/wire";

export function datasetQuery(id: string) {
  return queryOptions({
    queryKey: ["dataset", id],
    queryFn: async () =>
      (await take(api.GET("/v1/datasets/{dataset_id}", { params: { path: { dataset_id: id } } }))) as Dataset,
  });
}

export function useConfirmSchema(id: string) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: async (schema: DatasetSchema) =>
      (await take(
        api.PUT("/v1/datasets/{dataset_id}/schema", { params: { path: { dataset_id: id } }, body: schema }),
      )) as Dataset,
    onSuccess: (dataset) => {
      client.setQueryData(["dataset", id], dataset);
      return client.invalidateQueries({ queryKey: ["datasets"] });
    },
  });
}

export function useDeleteDataset(id: string) {
  const client = useQueryClient();
  return useMutation({
    mutationFn: () => take(api.DELETE("/v1/datasets/{dataset_id}", { params: { path: { dataset_id: id } } })),
    onSuccess: () => {
      client.removeQueries({ queryKey: ["dataset", id] });
      return client.invalidateQueries({ queryKey: ["datasets"] });
    },
  });
}

export interface Upload {
  file: File;
  name: string;
  visibility: Visibility;
  maxRowsPerPerson: number | string | null;
  target: string;
}

/** Send a file; `progress` is the share that has left this machine, `null` while nothing is sent. */
export function useUpload() {
  const client = useQueryClient();
  const [progress, setProgress] = useState<number | null>(null);
  const running = useRef<XMLHttpRequest | null>(null);
  const mutation = useMutation({
    mutationFn: (upload: Upload) => send(upload, running, setProgress),
    onSuccess: (dataset) => {
      client.setQueryData(["dataset", dataset.id], dataset);
      return client.invalidateQueries({ queryKey: ["datasets"] });
    },
    onSettled: () => setProgress(null),
  });
  return { ...mutation, progress, stop: () => running.current?.abort() };
}

/** By XMLHttpRequest, because fetch does not tell how much of a body has been sent. */
function send(
  { file, name, visibility, maxRowsPerPerson, target }: Upload,
  running: { current: XMLHttpRequest | null },
  onProgress: (share: number) => void,
): Promise<Dataset> {
  const form = new FormData();
  // The small fields first, so that what is wrong with them is known before the file has been read.
  form.set("name", name);
  form.set("visibility", visibility);
  if (visibility === "private") form.set("max_rows_per_person", String(maxRowsPerPerson ?? ""));
  if (target !== "") form.set("target", target);
  form.set("file", file);
  return new Promise((resolve, reject) => {
    const request = new XMLHttpRequest();
    running.current = request;
    request.open("POST", "/v1/datasets");
    request.responseType = "json";
    for (const [header, value] of Object.entries({ ...csrfHeader(), "Idempotency-Key": idempotencyKey() })) {
      request.setRequestHeader(header, value);
    }
    request.upload.onprogress = (event) => {
      if (event.lengthComputable) onProgress(event.loaded / event.total);
    };
    request.onload = () => {
      setReachable(true);
      if (request.status >= 200 && request.status < 300) resolve(request.response as Dataset);
      else reject(problemFrom(request.status, request.response));
    };
    request.onerror = () => reject(new OfflineError());
    request.onabort = () => reject(problemFrom(0, { detail: "The upload was stopped. Nothing of it is kept." }));
    request.send(form);
  });
}
