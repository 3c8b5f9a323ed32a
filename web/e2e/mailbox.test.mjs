// The development mailbox in a real browser, against a program with its demonstration data at BASE_URL.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { baseURL, launch } from './browser.mjs';

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());

async function api(query, variables) {
  const response = await fetch(`${baseURL}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ query, variables }),
  });
  const { data, errors } = await response.json();
  assert.equal(errors, undefined);
  return data;
}

// arrived waits, for ten seconds at most, for a mail of a kind to an address, and answers it.
async function arrived(to, kind) {
  for (const end = Date.now() + 10_000; Date.now() < end;) {
    const mails = await (await fetch(`${baseURL}/mailbox`, { headers: { accept: 'application/json' } })).json();
    const mail = mails.find((mail) => mail.to === to && mail.kind === kind);
    if (mail) return mail;
  }
  throw new Error(`there is no mail ${kind} to ${to}`);
}

// visit opens a page of the mailbox. faults collects what must not happen: errors on the console, as of what the policy does
// not allow, and requests to other hosts.
async function visit(t, path) {
  const context = await browser.newContext();
  t.after(() => context.close());
  const faults = [];
  context.on('request', (request) => {
    if (!request.url().startsWith(`${baseURL}/`)) faults.push(`request to ${request.url()}`);
    if (request.headers().referer) faults.push(`referrer to ${request.url()}`);
  });
  context.on('console', (message) => {
    // The driver's own, where it looks into the frame: mails have no script, and would be kept from running it.
    if (message.text().startsWith("Blocked script execution in 'about:srcdoc'")) return;
    if (message.type() === 'error') faults.push(`console: ${message.text()}`);
  });
  const page = await context.newPage();
  assert.equal((await page.goto(`${baseURL}${path}`)).status(), 200);
  return { page, faults };
}

// framed is the mail as HTML.
const framed = (page) => page.frameLocator('iframe[title="The mail as HTML"]');

test('a mail is shown as text and as HTML, and the links of both work', async (t) => {
  const name = `O'Brien & <b>Co</b>`;
  const input = { email: 'brien@example.com', username: 'brien', name, password: 'plover-xylem 42 Dunes' };
  await api('mutation ($i: RegisterInput!) { register(input: $i) { user { id } } }', { i: input });
  await api('mutation ($e: String!) { requestPasswordReset(email: $e) }', { e: input.email });
  const mail = await arrived(input.email, 'reset_password');

  const { page, faults } = await visit(t, '/mailbox');
  await page.getByRole('row').filter({ hasText: input.email }).getByRole('link', { name: mail.subject }).click();
  await page.getByRole('heading', { level: 1, name: mail.subject }).waitFor();
  const text = page.locator('pre');
  assert.ok((await text.textContent()).startsWith(`Hello ${name},\n`));
  assert.equal(await text.getByRole('link').getAttribute('href'), mail.links[0]);

  const html = framed(page);
  await html.getByText(`Hello ${name},`, { exact: true }).waitFor();
  assert.equal(await html.locator('b').count(), 0, 'a name is no markup');
  const button = html.getByRole('link', { name: 'Set a new password' });
  assert.equal(await button.getAttribute('href'), mail.links[0]);
  assert.equal(await button.evaluate((e) => getComputedStyle(e).backgroundColor), 'rgb(11, 87, 208)', 'it has its style');

  const opened = page.waitForEvent('popup');
  await button.click();
  const pages = await opened;
  await pages.getByLabel('New password').first().waitFor();
  assert.equal(new URL(pages.url()).pathname, '/reset-password');
  await pages.close();

  await text.getByRole('link').click();
  await page.getByLabel('New password').first().waitFor();
  assert.deepEqual(faults, []);
});

test('every kind has a preview', async (t) => {
  const { page, faults } = await visit(t, '/mailbox');
  await page.getByRole('link', { name: 'Previews' }).click();
  await page.getByRole('heading', { level: 1, name: 'Previews' }).waitFor();
  const links = await page.locator('tbody a').evaluateAll((all) => all.map((a) => [a.getAttribute('href'), a.textContent]));
  assert.ok(links.length >= 12);
  for (const [path, subject] of links) {
    await page.goto(`${baseURL}${path}`);
    await page.getByRole('heading', { level: 1, name: subject }).waitFor();
    await framed(page).getByRole('heading', { level: 1, name: subject }).waitFor();
    assert.match(await page.locator('pre').textContent(), /^Hello/);
  }
  assert.deepEqual(faults, []);
});
