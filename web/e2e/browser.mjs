// A browser for the end-to-end tests, and the playground as a person uses it.
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { after, afterEach, before } from 'node:test';
import { chromium, request } from 'playwright-core';

export const baseURL = process.env.BASE_URL?.replace(/\/$/, '');
if (!baseURL) throw new Error('set BASE_URL to a running server with its demo data, such as http://127.0.0.1:8080');

// password is that of everybody of the demonstration data.
export const password = 'correct-horse-battery';

const executables = [
  '/usr/bin/chromium',
  '/usr/bin/chromium-browser',
  '/usr/bin/google-chrome',
  '/usr/bin/google-chrome-stable',
  '/Applications/Google Chrome.app/Contents/MacOS/Google Chrome',
  '/Applications/Chromium.app/Contents/MacOS/Chromium',
];

export function launch() {
  const executablePath = process.env.CHROMIUM ?? executables.find((path) => existsSync(path));
  if (!executablePath) throw new Error('there is no Chromium: run scripts/install, or say in CHROMIUM where it is');
  return chromium.launch({
    executablePath,
    args: [
      '--disable-background-networking',
      '--disable-component-update',
      '--disable-gpu',
      '--disable-quic',
      '--disable-sync',
      '--no-first-run',
      ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
    ],
  });
}

// playgrounds has a browser for the tests of a file. visit opens the playground there, as open does, until the end of the
// test, which may leave no fault behind; forgive forgets those of a page.
export function playgrounds() {
  let browser;
  const visits = [];
  before(async () => {
    browser = await launch();
  });
  after(() => browser?.close());
  afterEach(async () => {
    for (const { context, faults } of visits.splice(0)) {
      await context.close();
      assert.deepEqual(faults, []);
    }
  });
  return {
    async visit(options) {
      const visited = await open(browser, options);
      visits.push(visited);
      return visited.page;
    },
    forgive(page) {
      visits.find((visited) => visited.page === page).faults.length = 0;
    },
  };
}

// signOutEverywhere ends all sessions of somebody, from outside of the browser.
export async function signOutEverywhere(login) {
  const api = await request.newContext({ baseURL });
  const ask = async (query, headers) => (await (await api.post('/graphql', { data: { query }, headers })).json()).data;
  const { login: { accessToken } } = await ask(`mutation { login(input: { login: "${login}", password: "${password}" }) { accessToken } }`);
  const { logoutEverywhere } = await ask('mutation { logoutEverywhere }', accessToken && { authorization: `Bearer ${accessToken}` });
  assert.ok(logoutEverywhere >= 1);
  await api.dispose();
}

// open visits the playground for the first time, as a new person, and signs in as login unless that is null. faults
// collects what must not happen: errors on the console, uncaught exceptions, violations of the policy, requests to other
// hosts.
export async function open(browser, { login = 'ada', ...options } = {}) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  const page = await context.newPage();
  const faults = [];

  await context.route('**/*', (route) => {
    if (new URL(route.request().url()).origin === baseURL) return route.continue();
    faults.push(`request to ${route.request().url()}`);
    return route.abort();
  });
  page.on('websocket', (socket) => {
    if (new URL(socket.url()).host !== new URL(baseURL).host) faults.push(`socket to ${socket.url()}`);
  });
  page.on('console', (message) => {
    if (message.type() === 'error') faults.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => faults.push(`exception: ${error.stack}`));
  await page.exposeFunction('reportViolation', (text) => faults.push(`policy: ${text}`));
  await page.addInitScript(() => {
    addEventListener('securitypolicyviolation', (e) => {
      globalThis.reportViolation(`${e.effectiveDirective} ${e.blockedURI} ${e.sourceFile}:${e.lineNumber}`);
    });
  });

  await page.goto(`${baseURL}/playground/`);
  await ready(page);
  if (login) {
    const filled = page.waitForEvent('load'); // the examples, with what may be seen now
    await signIn(page, login);
    await filled;
    await ready(page);
  }
  return { page, context, faults };
}

// signIn fills in the form.
export async function signIn(page, login, secret = password) {
  await page.getByRole('button', { name: 'Sign in' }).click();
  await page.getByLabel('Mail address or user name').fill(login);
  await page.getByLabel('Password').fill(secret);
  await page.keyboard.press('Enter');
}

export function signedInAs(page, login) {
  return page.getByRole('status').filter({ hasText: `Signed in as ${login}` }).waitFor();
}

// ready waits until the page can be used: its editors are there.
export async function ready(page) {
  for (const editor of ['.graphiql-query-editor', '.graphiql-editor-tool', '.graphiql-response']) {
    await page.locator(`${editor} .view-line`).first().waitFor({ state: 'attached' });
  }
}

export async function chooseTab(page, name) {
  await page.locator('.graphiql-tab-button', { hasText: name }).click();
  await page.locator('.graphiql-tab-active', { hasText: name }).waitFor();
}

export function run(page) {
  return page.locator('.graphiql-execute-button').click();
}

// text of an editor: operation.graphql, variables.json, request-headers.json or response.json. Editors draw only the lines
// in sight, hence their models are read.
export function text(page, file) {
  return page.evaluate((file) => {
    return globalThis.__MONACO.editor.getModels().find((model) => model.uri.path.endsWith(file)).getValue();
  }, file);
}

// variables answers those of the active tab, and waits until one called name is among them: editors are filled after the tab is active.
export async function variables(page, name) {
  const shown = await page.waitForFunction((name) => {
    const models = globalThis.__MONACO.editor.getModels();
    try {
      const all = JSON.parse(models.find((model) => model.uri.path.endsWith('variables.json')).getValue());
      return name in all && all;
    } catch {
      return false; // yet
    }
  }, name);
  return shown.jsonValue();
}

export function setText(page, file, value) {
  return page.evaluate(
    ([file, value]) => {
      globalThis.__MONACO.editor.getModels().find((model) => model.uri.path.endsWith(file)).setValue(value);
    },
    [file, value],
  );
}

// response waits, for ten seconds at most, for an answer that accept likes, and answers it.
export async function response(page, accept) {
  const end = Date.now() + 10_000;
  for (;;) {
    const shown = await text(page, 'response.json');
    if (shown !== '' && accept(JSON.parse(shown))) return JSON.parse(shown);
    if (Date.now() > end) throw new Error(`${accept} is not true of the answer: ${shown}`);
    await page.waitForFunction(
      (shown) => {
        const models = globalThis.__MONACO.editor.getModels();
        return models.find((model) => model.uri.path.endsWith('response.json')).getValue() !== shown;
      },
      shown,
      { timeout: 10_000 },
    ).catch(() => {}); // told above, with what is shown
  }
}
