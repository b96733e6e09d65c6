import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";
import { slimUplot } from "./scripts/slim-uplot.ts";

const api = process.env.CLIPWISE_URL ?? "http://127.0.0.1:8470";

export default defineConfig({
  plugins: [react(), slimUplot()],
  resolve: {
    alias: {
      "@": fileURLToPath(new URL("./src", import.meta.url)),
      // React 18 and later have it themselves.
      "use-sync-external-store/shim/index.js": "react",
    },
  },
  // The api serves what is built here.
  build: {
    outDir: "../api/clipwise_api/dashboard",
    emptyOutDir: true,
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    // The first of each that know light-dark().
    target: ["chrome123", "firefox120", "safari17.5"],
  },
  server: { proxy: { "/v1": { target: api }, "/healthz": { target: api } } },
});
