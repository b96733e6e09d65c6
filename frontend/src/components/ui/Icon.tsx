/** Line icons, 16 by 16, drawn for this dashboard. */
const PATHS = {
  jobs: "M2.5 12.5 6 8l2.5 2.5 5-6M2.5 3v10.5h11",
  data: "M8 2.5c3 0 5 .9 5 2s-2 2-5 2-5-.9-5-2 2-2 5-2ZM3 4.5v7c0 1.1 2 2 5 2s5-.9 5-2v-7M3 8c0 1.1 2 2 5 2s5-.9 5-2",
  model: "M3.5 5.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3ZM3.5 13.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3ZM12.5 9.5a1.5 1.5 0 1 0 0-3 1.5 1.5 0 0 0 0 3ZM5 4.5 11 7.4M5 11.5l6-2.9",
  worker: "M2.5 3h11v4h-11ZM2.5 9h11v4h-11ZM5 5h.01M5 11h.01M8 5h3M8 11h3",
  key: "M10.2 9.3a3.5 3.5 0 1 0-3.5-3.5c0 .5.1 1 .3 1.5L2.5 11.8v1.7h2.2v-1.6h1.6v-1.6h1.5l.9-.9c.5.2 1 .3 1.5.3ZM11.3 4.8h.01",
  plus: "M8 3v10M3 8h10",
  search: "M7 11.5a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9ZM10.3 10.3l3.2 3.2",
  sun: "M8 10.5a2.5 2.5 0 1 0 0-5 2.5 2.5 0 0 0 0 5ZM8 1.5v1.2M8 13.3v1.2M1.5 8h1.2M13.3 8h1.2M3.4 3.4l.9.9M11.7 11.7l.9.9M3.4 12.6l.9-.9M11.7 4.3l.9-.9",
  moon: "M13 9.6A5.5 5.5 0 0 1 6.4 3a5.5 5.5 0 1 0 6.6 6.6Z",
  system: "M2.5 3h11v7.5h-11ZM6 13.5h4M8 10.5v3",
  signOut: "M6.5 2.5h-3v11h3M7 8h6.5M11 5.5 13.5 8 11 10.5",
  cancel: "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12ZM5.8 5.8l4.4 4.4M10.2 5.8l-4.4 4.4",
  pause: "M5.5 3v10M10.5 3v10",
  play: "M4.5 2.8 12.5 8l-8 5.2Z",
  end: "M8 2.5v8M4.8 7.5 8 10.7l3.2-3.2M3 13.5h10",
  retry: "M13 8a5 5 0 1 1-1.5-3.6L13 5.8M13 2.6v3.2H9.8",
  trash: "M3 4.5h10M6.5 4.5v-2h3v2M4.5 4.5l.6 9h5.8l.6-9M7 7v4M9 7v4",
  copy: "M5.5 5.5h8v8h-8ZM3.5 10.5h-1v-8h8v1",
  download: "M8 2.5v7.5M4.8 7 8 10.2 11.2 7M2.5 13.5h11",
  upload: "M8 10.5V3M4.8 6 8 2.8 11.2 6M2.5 13.5h11",
  warning: "M8 2.2 14.3 13.2H1.7ZM8 6.5v3M8 11.4h.01",
  info: "M8 14A6 6 0 1 0 8 2a6 6 0 0 0 0 12ZM8 7.3v3.6M8 5.1h.01",
  check: "M3 8.5 6.3 12 13 4.5",
  close: "M4 4l8 8M12 4l-8 8",
  back: "M9.5 3.5 5 8l4.5 4.5",
  next: "M6.5 3.5 11 8l-4.5 4.5",
  shield: "M8 1.8 13 3.6v4c0 3.2-2.1 5.4-5 6.6-2.9-1.2-5-3.4-5-6.6v-4ZM5.7 8l1.7 1.7 3-3.2",
  eye: "M1.5 8S4 3.8 8 3.8 14.5 8 14.5 8 12 12.2 8 12.2 1.5 8 1.5 8ZM8 9.8a1.8 1.8 0 1 0 0-3.6 1.8 1.8 0 0 0 0 3.6Z",
  table: "M2.5 3h11v10h-11ZM2.5 6.3h11M2.5 9.6h11M6.5 6.3V13",
  chart: "M2.5 2.5v11h11M5 10l2.5-3 2 1.8L13 5",
  file: "M4 1.8h5L12.5 5v9.2H4ZM9 1.8V5h3.5",
  offline: "M2 2l12 12M4.6 8.3a5 5 0 0 1 1.7-1.1M9.5 7.1c.7.3 1.4.7 1.9 1.2M2.3 5.9c.5-.5 1.1-.9 1.8-1.3M7 3.6a9 9 0 0 1 6.7 2.3M6.7 10.6a2 2 0 0 1 2.6 0M8 12.8h.01",
} as const;

export type IconName = keyof typeof PATHS;

export function Icon({ name, size = 16 }: { name: IconName; size?: number }) {
  return (
    <svg
      width={size}
      height={size}
      viewBox="0 0 16 16"
      fill="none"
      stroke="currentColor"
      strokeWidth={size > 24 ? 1 : 1.4}
      strokeLinecap="round"
      strokeLinejoin="round"
      aria-hidden="true"
    >
      <path d={PATHS[name]} />
    </svg>
  );
}

/** The mark: a gradient that ends on the norm ball, and the part of it that was clipped. */
export function Mark({ size = 24 }: { size?: number }) {
  return (
    <svg width={size} height={size} viewBox="0 0 24 24" fill="none" aria-hidden="true">
      <circle cx="9.6" cy="14.4" r="7.4" stroke="var(--accent)" strokeWidth="2" />
      <path d="M9.6 14.4 14.8 9.2" stroke="currentColor" strokeWidth="2.2" strokeLinecap="round" />
      <circle cx="14.8" cy="9.2" r="2.1" fill="currentColor" />
      <path
        d="m17.6 6.4 4.3-4.3"
        stroke="var(--series-2)"
        strokeWidth="2.2"
        strokeLinecap="round"
        strokeDasharray="0.1 3"
      />
    </svg>
  );
}
