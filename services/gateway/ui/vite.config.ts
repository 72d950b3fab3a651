import { readFileSync } from "node:fs";
import react from "@vitejs/plugin-react";
import { defineConfig, type Plugin } from "vite";

const api = "^/(functions|uploads|invoke|invocations|workers|health|openapi.json)";

/** The fonts travel with their licences, as those ask. */
function fontLicenses(...names: string[]): Plugin {
  return {
    name: "font-licenses",
    generateBundle() {
      const texts = names.map((name) =>
        readFileSync(new URL(`node_modules/@fontsource-variable/${name}/LICENSE`, import.meta.url)),
      );
      this.emitFile({ type: "asset", fileName: "font-licenses.txt", source: texts.join("\n\n") });
    },
  };
}

// Built into ../static, which is checked in: same input, same bytes.
export default defineConfig({
  base: "/ui/",
  plugins: [react(), fontLicenses("inter", "jetbrains-mono")],
  build: {
    outDir: process.env["FAAS_UI_OUT"] ?? "../static",
    emptyOutDir: true,
    target: "es2022",
    assetsInlineLimit: 0, // the policy allows no data: URLs
    modulePreload: { polyfill: false },
    license: { fileName: "licenses.md" },
    chunkSizeWarningLimit: 700,
  },
  // `npm run dev` beside a running `faas up`.
  server: { proxy: { [api]: { target: "http://127.0.0.1:8080", changeOrigin: true } } },
});
