import js from "@eslint/js";
import jsxA11y from "eslint-plugin-jsx-a11y";
import reactHooks from "eslint-plugin-react-hooks";
import globals from "globals";
import tseslint from "typescript-eslint";

/** Import direction: app -> features -> components -> lib -> client; features never see each other. */
const mayNotImport = (folders, message) => ({
  "no-restricted-imports": [
    "error",
    {
      patterns: [
        { group: folders.map((folder) => `@/${folder}/**`), message },
        { group: ["../../*"], message: "Import from another folder by '@/...'." },
      ],
    },
  ],
});

export default tseslint.config(
  { ignores: ["node_modules", "src/client/schema.d.ts"] },
  js.configs.recommended,
  {
    files: ["src/**/*.{ts,tsx}", "*.config.ts", "scripts/*.ts"],
    extends: [
      ...tseslint.configs.strictTypeChecked,
      ...tseslint.configs.stylisticTypeChecked,
      jsxA11y.flatConfigs.strict,
      reactHooks.configs.flat["recommended-latest"],
    ],
    languageOptions: {
      globals: globals.browser,
      parserOptions: { projectService: true, tsconfigRootDir: import.meta.dirname },
    },
    rules: {
      "@typescript-eslint/restrict-template-expressions": ["error", { allowNumber: true }],
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
      "@typescript-eslint/consistent-type-imports": "error",
      "@typescript-eslint/switch-exhaustiveness-check": "error",
      "@typescript-eslint/no-unused-vars": ["error", { ignoreRestSiblings: true }],
      "no-console": "error",
    },
  },
  {
    files: ["src/lib/**"],
    rules: mayNotImport(["app", "features", "components"], "lib knows nothing above it."),
  },
  {
    files: ["src/components/**"],
    rules: mayNotImport(["app", "features"], "components know no feature."),
  },
  {
    files: ["src/features/**"],
    rules: mayNotImport(["app", "features"], "A feature knows components and lib; inside itself it imports by '../'."),
  },
  {
    // A file directly in features/<name> reaches another feature by one step up.
    files: ["src/features/*/*.{ts,tsx}"],
    rules: mayNotImport(["app", "features", "../*"], "A feature does not import another one."),
  },
  { files: ["scripts/*.mjs", "eslint.config.js"], languageOptions: { globals: globals.node } },
  { files: ["public/*.js"], languageOptions: { globals: globals.browser, sourceType: "script" } },
);
