import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { defineConfig } from 'vite';

const here = import.meta.dirname;

export default defineConfig({
  root: join(here, 'playground'),
  // Relative addresses: the pages work under any path they are mounted at.
  base: './',
  html: { cspNonce: '{{nonce}}' }, // replaced by web.go in each answer
  resolve: {
    alias: {
      // GraphiQL asks for all of Monaco's editor features; ours is the part that it can use.
      'monaco-graphql/esm/monaco-editor.js': join(here, 'playground/monaco.js'),
      'prettier/parser-babel': join(here, 'playground/jsonc.js'),
      'prettier/plugins/estree': join(here, 'playground/jsonc.js'),
    },
  },
  worker: { format: 'es' },
  build: {
    outDir: join(here, 'dist/playground'),
    emptyOutDir: true,
    assetsInlineLimit: 0, // fonts and icons as files: less for the policy to allow
    sourcemap: false,
    modulePreload: { polyfill: false },
    license: { fileName: 'licenses.md' },
    chunkSizeWarningLimit: 4096,
    rolldownOptions: {
      // "use client" says nothing to a page without a server side.
      onwarn: (warning, warn) => warning.code === 'MODULE_LEVEL_DIRECTIVE' || warn(warning),
    },
  },
  plugins: [latinFontsOnly(), stampSources()],
  server: { proxy: { '/graphql': { target: 'http://127.0.0.1:8080', ws: true } } },
});

// latinFontsOnly keeps one upright face a weight of the fonts that come with GraphiQL, as data in its style sheets; other
// scripts are shown in the system's fonts.
function latinFontsOnly() {
  return {
    name: 'latin-fonts-only',
    enforce: 'pre',
    transform(css, id) {
      if (!/@graphiql\/react\/font\/[\w-]+\.css/.test(id)) return;
      const faces = css.match(/@font-face\s*{[^}]*}/g);
      return faces.filter((face) => face.includes('U+0000-00FF') && !face.includes('italic')).join('\n');
    },
  };
}

// stampSources writes sources.sha256: what the committed build was made from. The Go test compares it with the tree.
function stampSources() {
  return {
    name: 'stamp-sources',
    apply: 'build',
    generateBundle() {
      const sources = ['clients/session.js', 'package.json', 'package-lock.json', 'vite.config.js'];
      for (const entry of readdirSync(join(here, 'playground'), { recursive: true, withFileTypes: true })) {
        if (entry.isFile()) sources.push(join(entry.parentPath, entry.name).slice(here.length + 1));
      }
      const lines = sources.sort().map((name) => {
        const sum = createHash('sha256').update(readFileSync(join(here, name))).digest('hex');
        return `${sum}  ${name}\n`;
      });
      this.emitFile({ type: 'asset', fileName: 'sources.sha256', source: lines.join('') });
    },
  };
}
