// The pages that mails lead to, in a real browser, against a program in development that wants addresses confirmed and
// limits next to nothing, at BASE_URL. TOKEN_STORAGE is what AUTH_TOKEN_STORAGE is there.
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { baseURL, launch } from './browser.mjs';

const storage = process.env.TOKEN_STORAGE ?? 'header';
const first = 'plover-xylem 42 Dunes';
const second = 'Quartz/hovel 77 spinet';

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());

// api sends an operation as an application would that is not a browser, and answers its data, or its first error.
async function api(query, variables, token) {
  const response = await fetch(`${baseURL}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...(token && { authorization: `Bearer ${token}` }) },
    body: JSON.stringify({ query, variables }),
  });
  const { data, errors } = await response.json();
  return errors ? { error: errors[0], cookies: [] } : { ...data, cookies: response.headers.getSetCookie() };
}

const login = (login, password) =>
  api('mutation ($i: LoginInput!) { login(input: $i) { accessToken user { email } } }', { i: { login, password } });

// signIn answers an access token, from wherever it is kept.
async function signIn(name, password) {
  const { login: payload, cookies } = await login(name, password);
  return payload.accessToken ?? cookies.find((line) => /gs_access=/.test(line)).match(/=([^;]*)/)[1];
}

// link is that of the newest mail of a kind to an address. Mails are sent by jobs: it waits for one that no call has taken before.
const read = new Set();
async function link(to, kind) {
  for (const end = Date.now() + 20_000; Date.now() < end; await new Promise((resolve) => setTimeout(resolve, 50))) {
    const mails = await (await fetch(`${baseURL}/mailbox`, { headers: { accept: 'application/json' } })).json();
    const mail = mails.find((mail) => mail.to === to && mail.kind === kind && !read.has(mail.id));
    if (mail) {
      read.add(mail.id);
      return mail.links[0];
    }
  }
  throw new Error(`no mail ${kind} to ${to}`);
}

// register makes an account that waits to be confirmed.
async function register(username) {
  const email = `${username}@example.com`;
  const input = { email, username, name: username.toUpperCase(), password: first };
  const { register } = await api('mutation ($i: RegisterInput!) { register(input: $i) { user { id } } }', { i: input });
  assert.equal(register.user, null);
  return email;
}

async function confirmed(username) {
  const email = await register(username);
  const token = new URL(await link(email, 'verify_email')).searchParams.get('token');
  await api('mutation ($t: String!) { verifyEmail(token: $t) { expiresAt } }', { t: token });
  return email;
}

// visit opens an address in a browser of its own. sent is the operations that the page sends, and faults what must not
// happen: errors on the console, violations of the policy, requests to elsewhere or that name an address with a token.
async function visit(t, address, options) {
  const context = await browser.newContext(options);
  t.after(() => context.close());
  const page = await context.newPage();
  const sent = [];
  const faults = [];
  page.on('request', (request) => {
    if (!request.url().startsWith(`${baseURL}/`)) faults.push(`request to ${request.url()}`);
    if (request.headers().referer) faults.push(`referrer to ${request.url()}`);
    if (new URL(request.url()).pathname === '/graphql') sent.push(JSON.parse(request.postData()));
  });
  page.on('console', (message) => {
    if (message.type() === 'error') faults.push(`console: ${message.text()}`);
  });
  page.on('pageerror', (error) => faults.push(`exception: ${error.stack}`));
  const response = await page.goto(address);
  assert.equal(response.status(), 200);
  return { page, context, sent, faults };
}

const heading = (page, name) => page.getByRole('heading', { level: 1, name }).waitFor();

// focused is what has the focus.
const focused = (page) => page.evaluate(() => document.activeElement.id || document.activeElement.textContent.trim());

// described is what a screen reader says of a field besides its name.
const described = (field) =>
  field.evaluate((e) => e.getAttribute('aria-describedby').split(' ').map((id) => document.getElementById(id).textContent).join(' '));

test('a new account is confirmed by hand, and signed in where cookies carry tokens', async (t) => {
  const email = await register('ada');
  const { page, context, sent, faults } = await visit(t, await link(email, 'verify_email'));
  await heading(page, 'Confirm your mail address');
  assert.equal(page.url(), `${baseURL}/verify-email`, 'the token is not in the address');
  assert.deepEqual(sent, [], 'opening the link does nothing');
  assert.equal((await login('ada', first)).login.user, null);

  await page.keyboard.press('Tab');
  assert.equal(await focused(page), 'Confirm address');
  await page.keyboard.press('Enter');
  await heading(page, 'Your address is confirmed');
  assert.equal(await focused(page), 'Your address is confirmed', 'screen readers read it');
  assert.equal(await page.title(), 'Your address is confirmed · Godstack');

  const cookies = await context.cookies();
  assert.equal(await page.evaluate(() => localStorage.length + sessionStorage.length), 0);
  assert.equal(await page.evaluate(() => history.state), null);
  if (storage === 'header') {
    await page.getByText('Now sign in in the application.').waitFor();
    assert.deepEqual(cookies, []);
  } else {
    await page.getByText('You are signed in as ADA.').waitFor();
    assert.deepEqual(cookies.map((c) => [c.name, c.httpOnly, c.sameSite]), [
      ['gs_access', true, 'Lax'],
      ['gs_refresh', true, 'Lax'],
    ]);
    const me = await context.request.post(`${baseURL}/graphql`, { data: { query: '{ me { email } }' } });
    assert.deepEqual(await me.json(), { data: { me: { email } } });
  }

  const token = await signIn('ada', first);
  const { sessions } = await api('{ sessions { current } }', {}, token);
  assert.equal(sessions.length, storage === 'header' ? 1 : 2, 'no session is left that nobody can use');
  assert.equal(await link(email, 'welcome'), `${baseURL}/`);
  assert.deepEqual(faults, []);
});

test('a link that is void can be asked for anew', async (t) => {
  const email = await register('barbara');
  const old = await link(email, 'verify_email');
  await api('mutation ($e: String) { requestEmailVerification(email: $e) }', { e: email });
  await link(email, 'verify_email');
  const { page, faults } = await visit(t, old);
  await page.getByRole('button', { name: 'Confirm address' }).click();
  await heading(page, 'This link does not work any more');

  const field = page.getByLabel('Mail address');
  await field.fill('barbara');
  await page.keyboard.press('Enter');
  await page.getByText('Write a mail address, such as name@example.com.').waitFor();
  assert.equal(await field.getAttribute('aria-invalid'), 'true');
  assert.equal(await focused(page), 'email');
  await field.fill(` ${email} `);
  await page.getByRole('button', { name: 'Send a link' }).click();
  await heading(page, 'Look into your mail');

  await page.goto(await link(email, 'verify_email'));
  await page.getByRole('button', { name: 'Confirm address' }).click();
  await heading(page, 'Your address is confirmed');
  assert.equal((await login('barbara', first)).login.user.email, email);
  await page.reload();
  await heading(page, 'This link does not work any more');
  assert.deepEqual(faults, []);
});

test('a forgotten password is set anew', async (t) => {
  const email = await confirmed('claude');
  await api('mutation ($e: String!) { requestPasswordReset(email: $e) }', { e: email });
  const address = await link(email, 'reset_password');
  const { page, sent, faults } = await visit(t, address);
  assert.equal(page.url(), `${baseURL}/reset-password`);
  await page.reload(); // as phones do, after a look into another application
  assert.equal(page.url(), `${baseURL}/reset-password`);

  const password = page.getByLabel('New password', { exact: true });
  const again = page.getByLabel('New password, once more');
  const order = [];
  for (let i = 0; i < 4; i++) {
    await page.keyboard.press('Tab');
    order.push(await focused(page));
  }
  assert.deepEqual(order, ['password', 'again', 'reveal', 'Set password']);

  await page.getByRole('button', { name: 'Set password' }).click();
  assert.equal(await described(password).then((text) => text.startsWith('Choose a password.')), true);
  await password.fill('claude-elwood-42');
  await again.fill('another');
  await page.keyboard.press('Enter');
  assert.equal((await described(again)).trim(), 'This is not the same password.');
  assert.equal(await focused(page), 'again');
  assert.deepEqual(sent, []);

  await again.fill('claude-elwood-42');
  await page.keyboard.press('Enter');
  await page.getByText('Password must have nothing of your name or address in it.').waitFor();
  assert.equal(await focused(page), 'password');
  assert.equal(await password.getAttribute('aria-invalid'), 'true');
  assert.equal(await again.getAttribute('aria-invalid'), null);

  await page.getByLabel('Show what I type').check();
  assert.equal(await password.getAttribute('type'), 'text');
  await password.fill(second);
  await again.fill(second);
  await page.getByRole('button', { name: 'Set password' }).click();
  await heading(page, 'Your password is set');
  assert.equal(await page.locator('#password').inputValue(), '', 'the page forgets it');
  assert.equal((await login('claude', first)).error.extensions.code, 'UNAUTHENTICATED');
  assert.equal((await login('claude', second)).login.user.email, email);

  await page.goto(address);
  await password.fill(first);
  await again.fill(first);
  await page.keyboard.press('Enter');
  await heading(page, 'This link does not work any more');
  await page.getByLabel('Mail address').fill(email);
  await page.keyboard.press('Enter');
  await heading(page, 'Look into your mail');
  assert.notEqual(await link(email, 'reset_password'), address);
  assert.deepEqual(faults, []);
});

test('who registers once more is told where to set a new password', async (t) => {
  const email = await confirmed('frances');
  const input = { email, username: 'frances2', name: 'Frances', password: first };
  const { register: again } = await api('mutation ($i: RegisterInput!) { register(input: $i) { user { id } } }', { i: input });
  assert.equal(again.user, null);
  const address = await link(email, 'account_exists');
  assert.equal(address, `${baseURL}/reset-password`);
  const { page, sent, faults } = await visit(t, address);
  await heading(page, 'Set a new password');
  assert.equal(await focused(page), 'Set a new password');
  assert.equal(await page.title(), 'Set a new password · Godstack');
  await page.getByText('Have a link sent to the mail address of your account:').waitFor();
  assert.deepEqual(sent, []);
  await page.getByLabel('Mail address').fill(email);
  await page.keyboard.press('Enter');
  await heading(page, 'Look into your mail');
  await page.goto(await link(email, 'reset_password'));
  await heading(page, 'Set a new password');
  await page.getByLabel('New password', { exact: true }).waitFor();
  assert.deepEqual(faults, []);
});

test('an address is changed, and taken back', async (t) => {
  const email = await confirmed('dennis');
  const token = await signIn('dennis', first);
  const to = 'dennis.new@example.com';
  const change = 'mutation ($p: String!, $e: String!) { changeEmail(password: $p, email: $e) }';
  assert.equal((await api(change, { p: first, e: to }, token)).changeEmail, true);

  const { page, faults } = await visit(t, await link(to, 'change_email'));
  await page.getByRole('button', { name: 'Confirm address' }).click();
  await heading(page, 'Your address is confirmed');
  await page.getByText('If the application asks you to, sign in.').waitFor();
  assert.equal((await login(to, first)).login.user.email, to);
  assert.equal((await login(email, first)).error.extensions.code, 'UNAUTHENTICATED');

  const revert = await link(email, 'email_changed');
  await page.goto(revert);
  assert.equal(page.url(), `${baseURL}/revert-email`);
  assert.equal((await login(to, first)).login.user.email, to, 'opening the link does nothing');
  await page.getByRole('button', { name: 'Take the change back' }).click();
  await heading(page, 'The change is taken back');
  assert.equal((await login(to, first)).error.extensions.code, 'UNAUTHENTICATED');
  assert.equal((await login(email, first)).error.extensions.code, 'UNAUTHENTICATED', 'the password is void');

  await page.goto(await link(email, 'reset_password'));
  await page.getByLabel('New password', { exact: true }).fill(second);
  await page.getByLabel('New password, once more').fill(second);
  await page.keyboard.press('Enter');
  await heading(page, 'Your password is set');
  assert.equal((await login(email, second)).login.user.email, email);

  await page.goto(revert);
  await page.getByRole('button', { name: 'Take the change back' }).click();
  await heading(page, 'This link does not work any more');
  assert.deepEqual(faults, []);
});

test('a session that has ended keeps nobody from a page', async (t) => {
  const email = await register('edsger');
  const { page, context } = await visit(t, `${baseURL}/verify-email`);
  await heading(page, 'This link does not work any more');
  await context.addCookies(['gs_access', 'gs_refresh'].map((name) => ({ name, value: 'over', url: baseURL })));
  await page.goto(await link(email, 'verify_email'));
  await page.getByRole('button', { name: 'Confirm address' }).click();
  await heading(page, 'Your address is confirmed');
});

test('what goes wrong is said in plain words, and can be tried again', async (t) => {
  const { page, sent } = await visit(t, `${baseURL}/revert-email?token=got_x`);
  const alert = page.getByRole('alert');
  const button = page.getByRole('button', { name: 'Take the change back' });
  const refused = (extensions, message = '') => ({ json: { errors: [{ message, extensions }] } });
  for (const [answer, says] of [
    [refused({ code: 'RATE_LIMITED', retryAfter: 40 }), 'There were too many tries from your network. Try again in 40 seconds.'],
    [refused({ code: 'RATE_LIMITED', retryAfter: 1700 }), 'There were too many tries from your network. Try again in 29 minutes.'],
    [refused({ code: 'INTERNAL' }), 'Something went wrong on our side. Try again in a while.'],
    [refused({ code: 'ALREADY_EXISTS', fields: ['email'] }, 'another user has this email'), 'Another user has this email.'],
    [{ status: 502, body: '<p>Bad gateway' }, 'There was no answer. Look whether you are online, and try again.'],
    [null, 'There was no answer. Look whether you are online, and try again.'],
  ]) {
    await page.route('**/graphql', (route) => (answer ? route.fulfill(answer) : route.abort()));
    await button.click();
    await alert.filter({ hasText: says }).waitFor();
    assert.equal(await focused(page), 'Take the change back');
    await page.unroute('**/graphql');
  }
  // A second press while the first is at work does nothing.
  let answer;
  await page.route('**/graphql', (route) => {
    answer = () => route.fulfill({ json: { data: { revertEmail: true } } });
  });
  const before = sent.length;
  await button.dblclick();
  await page.getByRole('status').filter({ hasText: 'One moment…' }).waitFor();
  assert.equal(await alert.textContent(), '');
  await answer();
  await heading(page, 'The change is taken back');
  assert.equal(sent.length, before + 1);
});

test('without its script a page sends nothing', async (t) => {
  const { page } = await visit(t, `${baseURL}/reset-password?token=got_x`, { javaScriptEnabled: false });
  await page.getByText('This page needs JavaScript').waitFor();
  const requests = [];
  page.on('request', (request) => requests.push(request.url()));
  await page.locator('#password').fill(first);
  const refused = page.waitForEvent('console', (message) => message.text().includes('form-action'));
  await Promise.race([refused, page.getByRole('button', { name: 'Set password' }).click()]); // the click waits for a page
  await refused;
  assert.deepEqual(requests, []);
});

test('the pages fit phones, and are dark at night', async (t) => {
  for (const path of ['verify-email', 'reset-password', 'revert-email']) {
    const colours = [];
    for (const colorScheme of ['light', 'dark']) {
      const { page } = await visit(t, `${baseURL}/${path}?token=got_x`, { colorScheme, viewport: { width: 320, height: 568 }, hasTouch: true });
      await page.locator('#ask h1').waitFor();
      assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), 'nobody has to scroll sideways');
      for (const control of await page.locator('section:not([hidden]) :is(button, input:not([type=checkbox]), .choice)').all()) {
        assert.ok((await control.boundingBox()).height >= 44, 'a thumb meets it');
      }
      colours.push(await page.evaluate(() => getComputedStyle(document.querySelector('main')).backgroundColor));
      if (process.env.PICTURES) await page.screenshot({ path: `${process.env.PICTURES}/${path}-${colorScheme}.png` });
    }
    assert.notEqual(colours[0], colours[1]);
  }
});
