// Signing in on the playground in a real browser, against a real server with its demo data at BASE_URL. TOKEN_STORAGE is
// what AUTH_TOKEN_STORAGE is there.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import {
  baseURL, chooseTab, password, playgrounds, ready, response, run, setText, signedInAs, signIn, signOutEverywhere,
} from './browser.mjs';

const inCookies = process.env.TOKEN_STORAGE === 'cookie';
const { visit, forgive } = playgrounds();

test('who is signed in asks over a socket too, and a close is shown with its reason', async () => {
  const page = await visit();
  let init;
  await page.routeWebSocket(/\/graphql$/, (socket) => {
    socket.onMessage((message) => {
      init = JSON.parse(message);
      socket.close({ code: 4400, reason: 'Bad request' });
    });
  });
  await chooseTab(page, 'Subscribe');
  await run(page);
  await response(page, (answer) => answer.connection === 'closed: 4400 Bad request.');
  assert.equal(init.type, 'connection_init');
  assert.equal(Boolean(init.payload.authorization?.startsWith('Bearer ')), !inCookies);
});

test('headers take the place of who is signed in, over HTTP and over a socket', async () => {
  const page = await visit();
  await setText(page, 'request-headers.json', '{ "Authorization": "Bearer worthless" }');
  await run(page);
  const { errors } = await response(page, (answer) => answer.errors);
  assert.equal(errors[0].extensions.code, 'UNAUTHENTICATED');

  await chooseTab(page, 'Subscribe');
  await setText(page, 'request-headers.json', '{ "Authorization": "Bearer worthless" }');
  await run(page);
  await response(page, (answer) => answer.connection === 'closed: 4403 Forbidden: the access token is not valid: refresh, or sign in again.');
  forgive(page); // the browser notes a status of 401 on its console
});

test('nobody is signed in at first; the form says what is wrong, and works by keyboard', async () => {
  const page = await visit({ login: null });
  await chooseTab(page, 'RecordMap');
  await run(page);
  const { data, errors } = await response(page, (answer) => answer.data || answer.errors);
  assert.ok(errors || data.records.threads.length === 0);

  const button = page.getByRole('button', { name: 'Sign in' });
  await button.focus();
  await page.keyboard.press('Enter');
  const dialog = page.getByRole('dialog', { name: 'Sign in' });
  await dialog.getByText(password).waitFor(); // the demonstration data's
  assert.equal(await page.evaluate(() => document.activeElement.name), 'login');
  await page.keyboard.type('ada');
  await page.keyboard.press('Tab');
  await page.keyboard.type('not that one');
  await page.keyboard.press('Enter');
  await dialog.getByRole('alert').filter({ hasText: 'the login or the password is wrong' }).waitFor();

  await page.keyboard.press('Escape');
  await dialog.waitFor({ state: 'hidden' });
  assert.ok(await button.evaluate((element) => element === document.activeElement));
  await button.press('Enter');
  assert.equal(await page.getByLabel('Password').inputValue(), '');
  assert.equal(await dialog.getByRole('alert').innerText(), '');
  await page.getByRole('button', { name: 'Cancel' }).click();
  await dialog.waitFor({ state: 'hidden' });
});

test('asks for the code of a second factor', async () => {
  const page = await visit({ login: null });
  const inputs = [];
  await page.route('**/graphql', (route) => {
    const { query, variables } = route.request().postDataJSON();
    if (!query.includes('login(')) return route.continue();
    inputs.push(variables.input);
    return route.fulfill({
      json: { data: null, errors: [{ message: 'the code is missing', extensions: { code: 'UNAUTHENTICATED', fields: ['code'] } }] },
    });
  });
  await signIn(page, 'ada');
  const code = page.getByLabel('Code of your second factor');
  await code.fill('123456');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => !document.querySelector('dialog [type=submit]').disabled);
  assert.deepEqual(inputs, [{ login: 'ada', password }, { login: 'ada', password, code: '123456' }]);
});

test('says who is signed in, in all tabs, until signing out', async () => {
  const page = await visit();
  await signedInAs(page, 'ada');
  const stored = await page.evaluate(() => JSON.stringify({ ...localStorage }));
  assert.equal(/eyJ|gst_/.test(stored), !inCookies);
  assert.equal(await page.evaluate(() => document.cookie), '');

  const second = await page.context().newPage();
  await second.goto(`${baseURL}/playground/`);
  await ready(second);
  await signedInAs(second, 'ada');
  await second.getByRole('button', { name: 'Sign out' }).click();
  await second.getByRole('button', { name: 'Sign in' }).waitFor();
  await page.getByRole('button', { name: 'Sign in' }).waitFor();

  await run(page);
  const { errors } = await response(page, (answer) => answer.errors);
  assert.match(errors[0].extensions.code, /UNAUTHENTICATED|FORBIDDEN/);
  await signIn(page, 'alan');
  await signedInAs(page, 'alan');
  await run(page);
  const { data } = await response(page, (answer) => answer.data?.createThread);
  assert.equal(data.createThread.owner.name, 'Alan');
});

test('renews tokens that are no longer good, and ends with its session', async () => {
  const page = await visit({ login: 'barbara' });
  const spoil = () =>
    inCookies
      ? page.context().clearCookies({ name: /gs_access$/ })
      : page.evaluate(() => {
          const held = JSON.parse(localStorage.getItem('godstack.session'));
          localStorage.setItem('godstack.session', JSON.stringify({ ...held, accessToken: 'worthless' }));
        });
  await spoil();
  await run(page);
  await response(page, (answer) => answer.data?.createThread);

  await spoil();
  await chooseTab(page, 'Subscribe');
  await run(page);
  await response(page, (answer) => answer.connection === 'open' && answer.events.length === 1);

  await signOutEverywhere('barbara');
  await chooseTab(page, 'Create');
  await setText(page, 'operation.graphql', 'query Create { me { id } }');
  await run(page);
  await response(page, (answer) => answer.data?.me === null);
  await page.getByRole('button', { name: 'Sign in' }).waitFor();
  forgive(page); // the browser notes statuses of 401 on its console
});

test('knows at its start who is signed in, and when nobody is any more', async () => {
  const page = await visit();
  await page.evaluate(() => localStorage.removeItem('godstack.session'));
  await page.reload();
  await ready(page);
  await (inCookies ? signedInAs(page, 'ada') : page.getByRole('button', { name: 'Sign in' }).waitFor());

  if (!inCookies) return;
  await page.context().clearCookies();
  await page.reload();
  await ready(page);
  await page.getByRole('button', { name: 'Sign in' }).waitFor();
  assert.equal(await page.evaluate(() => localStorage.getItem('godstack.session')), null);
});
