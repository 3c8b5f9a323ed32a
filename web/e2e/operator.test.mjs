// The operators' pages in a real browser, against a program with its demonstration data at BASE_URL, and empty pages at OTHER_URL and
// FRIEND_URL; the latter is in ALLOWED_ORIGINS. Of the data, ada is an administrator.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { baseURL, launch, password } from './browser.mjs';

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());

// visit opens a page as a new person. faults collects what must not happen: violations of the policy, requests to other hosts, exceptions.
async function visit(t, path, options) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 }, ...options });
  t.after(() => context.close());
  const faults = [];
  context.on('request', (request) => {
    if (!request.url().startsWith(`${baseURL}/`)) faults.push(`request to ${request.url()}`);
  });
  const page = await context.newPage();
  page.on('pageerror', (error) => faults.push(`exception: ${error.stack}`));
  page.on('console', (message) => {
    if (message.type() === 'error') faults.push(`console: ${message.text()}`);
  });
  await page.goto(`${baseURL}${path}`);
  return { page, context, faults };
}

// signIn fills in the form, and has the browser follow.
async function signIn(page, login) {
  await page.getByLabel('Mail address or user name').fill(login);
  await page.getByLabel('Password').fill(password);
  await Promise.all([page.waitForEvent('load'), page.getByRole('button', { name: 'Sign in' }).click()]);
}

test("River's pages work, for an administrator who has signed in", async (t) => {
  const { page, context, faults } = await visit(t, '/jobs/jobs?state=completed');
  assert.equal(new URL(page.url()).pathname, '/admin/sign-in');
  await signIn(page, 'ada');
  assert.equal(page.url(), `${baseURL}/jobs/jobs?state=completed`);
  await page.getByText('expire_changes').first().click();
  await page.getByRole('heading', { name: 'expire_changes' }).waitFor();
  const retried = page.waitForResponse((response) => response.url().endsWith('/jobs/api/jobs/retry'));
  await page.getByRole('button', { name: 'Retry' }).click();
  assert.equal((await retried).status(), 200);

  await page.goto(`${baseURL}/jobs/queues`);
  await page.getByRole('row').filter({ hasText: 'mail' }).waitFor();
  for (const [action, status] of [['pause', 'Paused'], ['resume', 'Active']]) {
    const answered = page.waitForResponse((response) => response.url().endsWith(`/jobs/api/queues/mail/${action}`));
    const row = page.getByRole('row').filter({ hasText: 'mail' });
    await row.getByRole('button').click();
    assert.equal((await answered).status(), 200);
    await row.getByText(status).waitFor();
  }
  assert.deepEqual(faults, []);

  await page.goto(`${baseURL}/admin/events`);
  for (const name of ['jobs_retried', 'queue_paused', 'queue_resumed']) {
    const row = page.getByRole('row').filter({ hasText: name });
    assert.equal(await row.getByRole('link', { name: 'ada' }).count(), 1, name);
  }
  await page.getByRole('button', { name: 'Sign out' }).click();
  await page.getByRole('heading', { name: 'Sign in' }).waitFor();
  assert.deepEqual(await context.cookies(), []);
  assert.deepEqual(faults, []);
});

test('pages work without a script, and on small screens', async (t) => {
  const { page, faults } = await visit(t, '/admin', { javaScriptEnabled: false, viewport: { width: 360, height: 700 } });
  await signIn(page, 'ada');
  await page.getByRole('heading', { name: 'Overview' }).waitFor();
  await page.getByRole('cell', { name: 'ready' }).waitFor();
  await page.getByRole('link', { name: 'Users' }).click();
  await page.getByLabel('Name, user name, mail address or id').fill('radi');
  await page.getByRole('button', { name: 'Search' }).click();
  await page.getByRole('link', { name: 'radia' }).click();
  await page.getByRole('heading', { level: 1, name: 'radia' }).waitFor();

  const { page: theirs } = await visit(t, '/admin');
  await signIn(theirs, 'radia');
  await theirs.getByText('You are signed in, but are no administrator.').waitFor();

  await page.getByRole('button', { name: 'Lock and sign out' }).click();
  await page.getByText('The account is locked, and its sessions have ended.').waitFor();
  await page.getByText('There is none.').waitFor(); // no session
  await theirs.goto(`${baseURL}/admin`);
  await signIn(theirs, 'radia');
  await theirs.getByText('An administrator has locked this account.').waitFor();
  await page.getByRole('button', { name: 'Unlock' }).click();
  await page.getByText('The account is unlocked.').waitFor();
  await page.getByLabel('Role').selectOption('moderator');
  await page.getByRole('button', { name: 'Change' }).click();
  await page.getByText('The role is changed.').waitFor();
  await page.getByRole('link', { name: 'All of them' }).click();
  await page.getByRole('row').filter({ hasText: 'account_locked' }).getByRole('link', { name: 'ada' }).waitFor();
  assert.deepEqual(faults, []);

  const { page: wide } = await visit(t, '/admin', { viewport: { width: 360, height: 700 } });
  await signIn(wide, 'ada');
  for (const path of ['/admin', '/admin/users', '/admin/users?q=ada', '/admin/events']) {
    await wide.goto(`${baseURL}${path}`);
    assert.equal(await wide.evaluate(() => document.documentElement.scrollWidth), 360, path);
  }
  await wide.getByRole('link', { name: 'ada' }).first().click();
  assert.equal(await wide.evaluate(() => document.documentElement.scrollWidth), 360);
});

// Another origin on this host shares its cookies: cookies know no ports.
test('pages of other origins send nothing', async (t) => {
  const { page, context, faults } = await visit(t, '/admin/users?q=grace');
  await signIn(page, 'ada');
  const grace = await page.getByRole('link', { name: 'grace' }).getAttribute('href');
  assert.deepEqual(faults, []);
  for (const origin of [process.env.OTHER_URL, process.env.FRIEND_URL]) {
    const evil = await context.newPage();
    await evil.goto(origin);
    const answered = evil.waitForResponse((response) => response.url() === `${baseURL}${grace}/lock`);
    await evil.evaluate((action) => {
      const form = Object.assign(document.createElement('form'), { method: 'post', action });
      document.body.append(form);
      form.submit();
    }, `${baseURL}${grace}/lock`);
    assert.equal((await answered).status(), 403);
    await evil.waitForURL(`${baseURL}${grace}/lock`);

    await evil.goto(origin);
    const read = await evil.evaluate(async (url) => {
      const tried = [];
      for (const [path, options] of [
        ['/jobs/api/states', {}],
        ['/admin/users', {}],
        ['/jobs/api/queues/default/pause', { method: 'PUT' }],
        ['/jobs/api/jobs/delete', { method: 'POST', body: '{"ids":["1"]}', headers: { 'content-type': 'application/json' } }],
      ]) {
        tried.push(await fetch(url + path, { credentials: 'include', ...options }).then((response) => response.text(), () => 'refused'));
      }
      return tried;
    }, baseURL);
    assert.deepEqual(read.slice(0, 2), ['refused', 'refused']);
    for (const text of read.slice(2)) assert.match(text, /refused|may not send/);
    await evil.close();
  }
  await page.reload();
  await page.getByRole('row').filter({ hasText: 'grace' }).getByRole('cell', { name: 'open' }).waitFor();
  await page.goto(`${baseURL}/admin/events`);
  assert.equal(await page.getByRole('row').filter({ hasText: 'queue_paused' }).filter({ hasText: 'default' }).count(), 0);
  assert.equal(await page.getByRole('row').filter({ hasText: 'jobs_deleted' }).count(), 0);
});
