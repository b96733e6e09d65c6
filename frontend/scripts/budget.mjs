// Fails the build when what a browser loads grows over the budget: for the first page, and in all.
import { readdirSync, readFileSync } from "node:fs";
import { join, posix } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const FIRST_KB = 130;
const ALL_KB = 160;
const folder = fileURLToPath(new URL("../../api/clipwise_api/dashboard", import.meta.url));

const size = (file) => gzipSync(readFileSync(join(folder, file)), { level: 9 }).length;
const text = (file) => readFileSync(join(folder, file), "utf8");

/** The files that `file` needs before anything is drawn: what a page names, what a module imports at once. */
function needs(file) {
  if (file.endsWith(".html")) return [...text(file).matchAll(/(?:src|href)="\/([^"]+)"/g)].map((found) => found[1]);
  if (!file.endsWith(".js")) return [];
  // `import("./x.js")` is loaded later; `import"./x.js"` and `from"./x.js"` are not.
  return [...text(file).matchAll(/(?:from|import)\s*["'](\.\.?\/[^"']+\.js)["']/g)].map((found) =>
    posix.join(posix.dirname(file), found[1]),
  );
}

const first = new Set(["index.html"]);
for (const file of first) for (const one of needs(file)) first.add(one);
const all = readdirSync(folder, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => join(entry.parentPath, entry.name).slice(folder.length + 1));

const sum = (files) => [...files].reduce((total, file) => total + size(file), 0) / 1024;
const parts = [
  { name: "first page", kb: sum(first), budget: FIRST_KB },
  { name: "all", kb: sum(all), budget: ALL_KB },
];
console.log(`dashboard, gzipped: ${parts.map((p) => `${p.name} ${p.kb.toFixed(1)} of ${p.budget} KB`).join(", ")}`);
const over = parts.filter((part) => part.kb > part.budget);
for (const part of over) {
  console.error(`dashboard: ${part.name} is over its budget; load it later (src/app/Pages.tsx) or make it smaller`);
}
process.exit(over.length > 0 ? 1 : 0);
