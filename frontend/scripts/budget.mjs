// Fails the build when what a browser loads in all grows over the budget.
import { readdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { gzipSync } from "node:zlib";

const BUDGET_KB = 130;
const folder = fileURLToPath(new URL("../../api/clipwise_api/dashboard", import.meta.url));

const files = readdirSync(folder, { recursive: true, withFileTypes: true })
  .filter((entry) => entry.isFile())
  .map((entry) => join(entry.parentPath, entry.name));
const total = files.reduce((sum, file) => sum + gzipSync(readFileSync(file), { level: 9 }).length, 0) / 1024;

if (total > BUDGET_KB) {
  console.error(`dashboard: ${total.toFixed(1)} KB gzipped, over the budget of ${BUDGET_KB} KB`);
  process.exit(1);
}
console.log(`dashboard: ${total.toFixed(1)} KB gzipped of ${BUDGET_KB} KB`);
