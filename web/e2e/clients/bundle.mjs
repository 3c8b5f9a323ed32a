// The script of page.js, built in memory.
import { join } from 'node:path';
import { build } from 'vite';

export async function bundle() {
  const { output } = await build({
    configFile: false,
    root: import.meta.dirname,
    logLevel: 'error',
    define: { 'process.env.NODE_ENV': '"production"' },
    build: { write: false, minify: false, rolldownOptions: { input: join(import.meta.dirname, 'page.js') } },
  });
  if (output.length !== 1) throw new Error(`built ${output.length} files`);
  return output[0].code;
}

// start starts the application on a page that has nothing of its own.
export async function start(page, script) {
  await page.addScriptTag({ type: 'module', content: script });
  await page.waitForFunction(() => globalThis.app);
}
