/** API keys: list, make, revoke. */
import { queryOptions, useMutation, useQueryClient } from "@tanstack/react-query";
import { api, idempotencyKey, take } from "@/lib/api";
import type { Role } from "@/lib/wire";

export const keysQuery = queryOptions({
  queryKey: ["keys"],
  queryFn: async () => (await take(api.GET("/v1/api_keys"))).data,
});

export function useCreateKey() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (key: { name: string; role: Role }) =>
      take(api.POST("/v1/api_keys", { params: { header: { "Idempotency-Key": idempotencyKey() } }, body: key })),
    onSuccess: () => client.invalidateQueries({ queryKey: ["keys"] }),
  });
}

export function useRevokeKey() {
  const client = useQueryClient();
  return useMutation({
    mutationFn: (id: string) => take(api.DELETE("/v1/api_keys/{key_id}", { params: { path: { key_id: id } } })),
    onSuccess: () => client.invalidateQueries({ queryKey: ["keys"] }),
  });
}
