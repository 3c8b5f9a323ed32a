// The playground in a real browser, against a real server with its demo data at BASE_URL.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { chooseTab, playgrounds, ready, response, run, setText, text, variables } from './browser.mjs';

const { visit, forgive } = playgrounds();

test('loads with its title, tabs, workers and without faults', async () => {
  const page = await visit();
  assert.equal(await page.title(), 'Godstack playground');
  assert.deepEqual(await page.locator('.graphiql-tab-button').allTextContents(), [
    'Create',
    'Conflict',
    'RecordMap',
    'Subscribe',
  ]);
  const names = () => page.workers().map((worker) => new URL(worker.url()).pathname.match(/(\w+)\.worker/)[1]);
  while (!(names().includes('graphql') && names().includes('json'))) await page.waitForEvent('worker');
});

test('tidies the query and JSON with comments', async () => {
  const page = await visit();
  await setText(page, 'variables.json', '{"subject":"x" /* why */}');
  await page.getByRole('button', { name: /Prettify/ }).click();
  await page.locator('.graphiql-query-editor .view-line', { hasText: /^\s*name\s*$/ }).waitFor();
  assert.equal(await text(page, 'variables.json'), '{\n  "subject": "x" /* why */\n}');
});

test('uses all of its widgets within the policy', async () => {
  const page = await visit();
  const editor = page.locator('.graphiql-query-editor');

  await page.locator('.graphiql-query-editor .view-line', { hasText: 'mutation' }).hover();
  await editor.locator('.view-line', { hasText: 'createdAt' }).click();
  await page.keyboard.press('End');
  await page.keyboard.press('Enter');
  await page.keyboard.press('Control+Space');
  await editor.locator('.suggest-widget', { hasText: 'subject' }).waitFor();
  await page.keyboard.press('Escape');
  await page.keyboard.press('F1');
  await page.locator('.quick-input-widget').waitFor();
  await page.keyboard.press('Escape');
  await editor.locator('.view-line', { hasText: 'owner' }).click({ button: 'right' });
  await page.keyboard.press('Escape');
  await page.getByRole('button', { name: 'Open settings dialog' }).click();
  await page.getByRole('dialog').getByRole('button', { name: 'Dark' }).click();
  await page.locator('body.graphiql-dark').waitFor();
});

test('follows a system that prefers the dark', async () => {
  const background = (page) =>
    page.locator('.graphiql-container').evaluate((element) => getComputedStyle(element).backgroundColor);
  const light = await background(await visit({ colorScheme: 'light' }));
  const dark = await background(await visit({ colorScheme: 'dark' }));
  assert.notEqual(light, dark);
});

test('shows the types of the schema', async () => {
  const page = await visit();
  await page.getByRole('button', { name: 'Show Documentation Explorer' }).click();
  const docs = page.locator('.graphiql-plugin');
  for (const type of ['Query', 'Mutation', 'Subscription', 'Thread', 'User', 'RecordMap']) {
    await docs.getByText(type, { exact: true }).first().waitFor();
  }
  await page.getByRole('button', { name: 'Show GraphiQL Explorer' }).click();
  await docs.getByText('createThread').first().waitFor();
});

test('Create makes a thread', async () => {
  const page = await visit();
  await chooseTab(page, 'Create');
  await run(page);
  const { data } = await response(page, (answer) => answer.data?.createThread);
  const { subject } = await variables(page, 'subject');
  assert.equal(data.createThread.subject, subject);
  assert.equal(data.createThread.version, 1);
  assert.ok(data.createThread.id);
});

test('Conflict writes once, and is refused when what it is based on is gone', async () => {
  const page = await visit();
  await chooseTab(page, 'Conflict');
  const { id, expectedVersion, subject } = await variables(page, 'expectedVersion');

  await run(page);
  const { data } = await response(page, (answer) => answer.data?.updateThread);
  assert.deepEqual(data.updateThread, { id, version: expectedVersion + 1, subject });

  await run(page);
  const { errors } = await response(page, (answer) => answer.errors);
  const { code, currentVersion } = errors[0].extensions;
  assert.equal(code, 'CONFLICT');
  assert.equal(currentVersion, expectedVersion + 1);
});

test('RecordMap answers many types, and not what is held already', async () => {
  const page = await visit();
  await chooseTab(page, 'RecordMap');
  const { refs } = await variables(page, 'refs');
  await run(page);
  const { data } = await response(page, (answer) => answer.data?.records);
  assert.equal(data.records.threads[0].id, refs[0].id);
  assert.deepEqual(data.records.unchanged, [refs[1].id]);
  assert.deepEqual(data.records.missing, []);
});

test('Subscribe shows the snapshot, then a change made in another window', async () => {
  const reader = await visit();
  await chooseTab(reader, 'Subscribe');
  const { id } = await variables(reader, 'id');
  await run(reader);
  const first = await response(reader, (answer) => answer.events?.length === 1);
  assert.equal(first.connection, 'open');
  const snapshot = first.events[0].data.threadChanged;
  assert.equal(snapshot.kind, 'SNAPSHOT');
  assert.equal(snapshot.recordId, id);

  const writer = await visit();
  await chooseTab(writer, 'Conflict');
  const { subject } = await variables(writer, 'expectedVersion');
  await run(writer);
  await response(writer, (answer) => answer.data?.updateThread);

  const { events } = await response(reader, (answer) => answer.events?.length === 2);
  const update = events[0].data.threadChanged;
  assert.equal(update.kind, 'UPDATED');
  assert.equal(update.version, snapshot.version + 1);
  assert.deepEqual(update.fields, ['subject']);
  assert.equal(update.thread.subject, subject);
  assert.equal(events[1].data.threadChanged.kind, 'SNAPSHOT');

  await run(reader); // the button stops what runs
  const stopped = await response(reader, (answer) => answer.connection === 'stopped');
  assert.equal(stopped.events.length, 2);
});

test('an answer that is not GraphQL is shown', async () => {
  const page = await visit();
  await page.route('**/graphql', (route) => route.fulfill({ status: 413, body: 'too large', contentType: 'text/plain' }));
  await run(page);
  const { errors } = await response(page, (answer) => answer.errors);
  assert.match(errors[0].message, /^HTTP 413/);
  assert.equal(errors[0].extensions.body, 'too large');
  forgive(page); // the browser notes a status of 413 on its console
});

test('tabs are remembered, and can be had anew', async () => {
  const page = await visit();
  await chooseTab(page, 'Conflict');
  const { expectedVersion } = await variables(page, 'expectedVersion');
  await run(page);
  await response(page, (answer) => answer.data?.updateThread);
  await page.waitForFunction(() => localStorage.getItem('graphiql:tabState')?.includes('"activeTabIndex":1'));
  await page.reload();
  await ready(page);
  await page.locator('.graphiql-tab-active', { hasText: 'Conflict' }).waitFor();
  assert.equal((await variables(page, 'expectedVersion')).expectedVersion, expectedVersion);

  const anew = page.waitForEvent('load');
  await page.getByRole('button', { name: 'Open the example tabs again' }).click();
  await anew;
  await ready(page);
  await page.locator('.graphiql-tab-active', { hasText: 'Create' }).waitFor();
  await chooseTab(page, 'Conflict');
  assert.equal((await variables(page, 'expectedVersion')).expectedVersion, expectedVersion + 1);
});
