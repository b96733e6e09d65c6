import { expect, it } from "vitest";
import { share, standing } from "./standing";
import type { Job } from "./wire";

const NOW = Date.parse("2026-01-01T00:00:00Z");

function job(given: Partial<Job>): Job {
  const bare = {
    status: "queued",
    phase: null,
    progress: null,
    plan: null,
    checkpoint_step: null,
    interruptions: 0,
    retry_at: null,
    spec: { resources: { queue: "cpu" } },
  };
  return { ...bare, ...given } as unknown as Job;
}

const at = (step: number) => ({ step, steps: 1000, eta_seconds: null, samples_per_second: null });

it("says of an interrupted job where and when it goes on", () => {
  const interrupted = { phase: "interrupted", interruptions: 2, checkpoint_step: 300, progress: at(340) };
  expect(standing(job({ ...interrupted, retry_at: "2026-01-01T00:00:11.2Z" }), NOW)).toBe(
    "Interrupted 2 times; goes on from step 300 in 12 s",
  );
  expect(standing(job({ ...interrupted, interruptions: 1 }), NOW)).toBe(
    "Interrupted once; goes on from step 300 when a worker is free",
  );
  expect(standing(job({ phase: "interrupted", retry_at: "2025-12-31T23:59:00Z" }), NOW)).toBe(
    "Interrupted; begins anew when a worker is free",
  );
});

it("says what a job waits for", () => {
  expect(standing(job({}), NOW)).toBe("Waiting for a worker of queue cpu");
  expect(standing(job({ checkpoint_step: 40, interruptions: 1 }), NOW)).toBe(
    "Waiting for a worker of queue cpu, to go on from step 40",
  );
});

it("says what pausing, paused and recovering jobs do", () => {
  expect(standing(job({ status: "pausing", progress: at(340) }), NOW)).toBe(
    "Step 340 of 1,000, pausing after a checkpoint",
  );
  expect(standing(job({ status: "paused", progress: at(340), checkpoint_step: 340 }), NOW)).toBe(
    "Paused at step 340 of 1,000",
  );
  expect(standing(job({ status: "paused" }), NOW)).toBe("Paused before its first step");
  expect(standing(job({ status: "running", phase: "recovering", progress: at(340) }), NOW)).toBe(
    "Going on from step 340 of 1,000",
  );
  expect(standing(job({ status: "running", phase: "loading" }), NOW)).toBe("Loading");
  expect(standing(job({ status: "running", phase: "training", progress: at(5) }), NOW)).toBe("Step 5 of 1,000");
});

it("measures a job that nobody runs by its checkpoint", () => {
  const queued = job({ checkpoint_step: 300, progress: at(340) });
  expect(share(queued)).toBe(0.3);
  expect(share(job({}))).toBe(0);
  expect(share(job({ status: "running" }))).toBeNull();
  expect(share(job({ status: "cancelled" }))).toBe(0);
  expect(share(job({ status: "failed", progress: at(500) }))).toBe(0.5);
  expect(share(job({ status: "succeeded" }))).toBe(1);
});
