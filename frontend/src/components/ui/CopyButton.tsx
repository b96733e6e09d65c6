import { useState } from "react";
import { Button } from "@/components/ui/Button";

export function CopyButton({ text, children = "Copy" }: { text: string; children?: string }) {
  const [copied, setCopied] = useState(false);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      setCopied(true);
      window.setTimeout(() => setCopied(false), 1500);
    } catch {
      // Without permission the text is still there to be selected.
    }
  };
  return (
    <Button small look="quiet" icon={copied ? "check" : "copy"} onClick={() => void copy()}>
      {copied ? "Copied" : children}
    </Button>
  );
}
