import type { Tone } from "@/components/ui/Chip";

/** A bar; without a value it says that something is going on. */
export function Progress({ value, tone = "active", label }: { value: number | null; tone?: Tone; label: string }) {
  const share = value === null ? null : Math.max(0, Math.min(1, value));
  return (
    <div
      className={`progress progress--${share === null ? "unknown" : tone}`}
      role="progressbar"
      aria-label={label}
      aria-valuemin={0}
      aria-valuemax={100}
      {...(share === null ? {} : { "aria-valuenow": Math.round(share * 100) })}
    >
      <div className="progress__fill" style={{ width: share === null ? undefined : `${share * 100}%` }} />
    </div>
  );
}
