import { ago, dateTime } from "@/lib/format";
import { useNow } from "@/lib/hooks";

/** How long ago; the exact time on hover. */
export function Ago({ at }: { at: string | null | undefined }) {
  const now = useNow(10_000);
  if (!at) return <span>–</span>;
  return (
    <time dateTime={at} title={dateTime(at)} className="nowrap">
      {ago(at, now)}
    </time>
  );
}
