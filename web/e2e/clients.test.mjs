// The clients of web/clients in a real browser, with the npm packages that applications use, against a real server at
// BASE_URL whose access tokens live for a few seconds. TOKEN_STORAGE is what AUTH_TOKEN_STORAGE is there.
import assert from 'node:assert/strict';
import { request as send } from 'node:http';
import { after, before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';

import { baseURL, launch, password, signOutEverywhere } from './browser.mjs';
import { bundle, start } from './clients/bundle.mjs';

const storage = process.env.TOKEN_STORAGE ?? 'header';
const inCookies = storage === 'cookie';

let browser;
let script;

before(async () => {
  [browser, script] = await Promise.all([launch(), bundle()]);
});
after(() => browser?.close());

// Each test has somebody of the demonstration data to itself.
const people = ['alan', 'barbara', 'claude', 'dennis', 'donald', 'edsger', 'frances', 'grace', 'guido', 'hedy', 'jean', 'john',
  'katherine', 'ken', 'leslie', 'linus', 'margaret', 'radia', 'tim'];

// somebody is next, and signed in nowhere.
async function somebody() {
  const login = people.shift();
  people.push(login);
  await signOutEverywhere(login);
  return login;
}

// person is a browser of one's own, with tabs that run a client at the program's origin.
async function person(t, client) {
  const login = await somebody();
  const context = await browser.newContext({ bypassCSP: true }); // the script is not the program's
  t.after(() => context.close());
  const requests = [];
  context.on('request', (sent) => {
    if (new URL(sent.url()).pathname === '/graphql') requests.push(sent);
  });
  return {
    login,
    context,
    async tab() {
      const page = await context.newPage();
      await page.goto(`${baseURL}/healthz?client=${client}`);
      await start(page, script);
      return page;
    },
    sent: (operation) => requests.filter((sent) => sent.postData()?.includes(operation)),
    methods: () => new Set(requests.map((sent) => sent.method())),
  };
}

const signIn = (page, login) =>
  page.evaluate(([login, password]) => globalThis.app.session.signIn({ login, password }), [login, password]);

const signOut = (page) => page.evaluate(() => globalThis.app.session.signOut());

// me is the user name of who asks, null for nobody.
async function me(page) {
  const { data, code } = await page.evaluate(() => globalThis.app.query('query Me { me { id username } }'));
  assert.equal(code, undefined);
  return data.me?.username ?? null;
}

async function sessions(page) {
  const { data, code } = await page.evaluate(() => globalThis.app.query('query Sessions { sessions { id current } }'));
  assert.equal(code, undefined);
  return data.sessions;
}

// expire waits until the access token that the browser has is no longer good, by the server's word.
async function expire(person, page) {
  const held = await page.evaluate(() => globalThis.app.session.current());
  const cookie = (await person.context.cookies(baseURL)).map(({ name, value }) => `${name}=${value}`).join('; ');
  const headers = inCookies ? { cookie } : { authorization: `Bearer ${held.accessToken}` };
  const end = Date.now() + 30_000;
  for (;;) {
    const { status } = await exchange(`${baseURL}/graphql?query={me{id}}`, { headers });
    if (status === 401) return;
    assert.ok(Date.now() < end, 'the access token does not expire');
    await setTimeout(100);
  }
}

// spoil has it as if the access token had expired, at once.
async function spoil(person, page) {
  if (inCookies) return person.context.clearCookies({ name: /gs_access$/ });
  await page.evaluate(() => {
    const key = 'godstack.session';
    localStorage.setItem(key, JSON.stringify({ ...JSON.parse(localStorage.getItem(key)), accessToken: 'worthless' }));
  });
}

// exchange sends a request from outside of the browser.
function exchange(url, { method = 'GET', headers, body } = {}) {
  return new Promise((resolve, reject) => {
    const sent = send(url, { method, headers, agent: false }, (response) => {
      response.resume();
      response.on('end', () => resolve({ status: response.statusCode }));
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

// createThread makes a thread for the events of watch.
async function createThread(page) {
  const text = 'mutation Create { createThread(input: { subject: "new" }) { id } }';
  const { data, code } = await page.evaluate((text) => globalThis.app.mutate(text), text);
  assert.equal(code, undefined);
  return data.createThread.id;
}

// rename renames it, whatever its version is.
async function rename(page, id, subject) {
  const { data } = await page.evaluate((id) => globalThis.app.query(`query { thread(id: "${id}") { id version } }`), id);
  const text = `mutation Rename($id: ID!, $version: Int!, $subject: String!) {
    updateThread(id: $id, expectedVersion: $version, input: { subject: $subject }) { id version }
  }`;
  const variables = { id, version: data.thread.version, subject };
  const { code } = await page.evaluate(([text, variables]) => globalThis.app.mutate(text, variables), [text, variables]);
  assert.equal(code, undefined);
}

// sees waits until the events of a page have a subject.
const sees = (page, subject) =>
  page.waitForFunction((subject) => globalThis.app.events.some(({ data }) => data?.threadChanged.thread?.subject === subject), subject);

for (const client of ['apollo', 'urql']) {
  describe(`${client}, tokens in ${storage}`, { concurrency: 4 }, () => { // they wait, mostly
    test('signs in, asks, and signs out', async (t) => {
      const she = await person(t, client);
      const page = await she.tab();
      assert.equal(await me(page), null);
      assert.equal((await signIn(page, she.login)).username, she.login);
      assert.equal(await me(page), she.login);
      assert.equal((await sessions(page)).length, 1);
      await createThread(page);

      await page.reload();
      await start(page, script);
      assert.equal(await me(page), she.login);

      await signOut(page);
      assert.equal(await me(page), null);
      assert.equal(await page.evaluate(() => localStorage.length), 0);
      assert.deepEqual(await she.context.cookies(), []);
      assert.equal(she.methods().has('GET'), client === 'urql'); // which queries so, unless it is told otherwise
    });

    test('says what was wrong with a password', async (t) => {
      const she = await person(t, client);
      const page = await she.tab();
      const failure = await page.evaluate(
        (login) => globalThis.app.session.signIn({ login, password: 'not that one' }).catch((e) => [e.message, e.extensions.code]),
        she.login,
      );
      assert.deepEqual(failure, ['the login or the password is wrong', 'UNAUTHENTICATED']);
      assert.equal(await me(page), null);
    });

    test('keeps tokens where the server wants them', async (t) => {
      const she = await person(t, client);
      const page = await she.tab();
      await signIn(page, she.login);
      const { stored, cookie } = await page.evaluate(() => ({
        stored: JSON.stringify([{ ...localStorage }, { ...sessionStorage }]),
        cookie: document.cookie,
      }));
      assert.equal(cookie, '');
      assert.equal(/eyJ|gst_/.test(stored), !inCookies, stored);
      const cookies = await she.context.cookies();
      if (storage === 'header') {
        assert.deepEqual(cookies, []);
        return;
      }
      assert.deepEqual(cookies.map(({ name }) => name).sort(), ['gs_access', 'gs_refresh']);
      for (const { httpOnly, sameSite, path } of cookies) assert.deepEqual([httpOnly, sameSite, path], [true, 'Lax', '/']);
    });

    test('renews tokens when they expire, once for all that is under way', async (t) => {
      const she = await person(t, client);
      const page = await she.tab();
      await signIn(page, she.login);
      await expire(she, page);
      const [name, list, id] = await Promise.all([me(page), sessions(page), createThread(page)]);
      assert.equal(name, she.login);
      assert.equal(list.length, 1);
      assert.match(id, /^thread_/);
      assert.equal(she.sent('Refresh').length, 1);
    });

    for (const locks of [true, false]) {
      test(`renews them in two tabs at once, ${locks ? 'with' : 'without'} locks`, async (t) => {
        const she = await person(t, client);
        if (!locks) await she.context.addInitScript(() => delete Navigator.prototype.locks);
        const tabs = [await she.tab(), await she.tab()];
        await signIn(tabs[0], she.login);
        for (const tab of tabs) await tab.waitForFunction(() => globalThis.app.session.current());

        for (let round = 1; round <= 2; round++) {
          await expire(she, tabs[0]);
          assert.deepEqual(await Promise.all(tabs.map(me)), [she.login, she.login]);
          // What one tab stores, another may see a moment later: then both ask, and are given the same.
          const asked = she.sent('Refresh').length;
          assert.ok(asked >= round && asked <= 2 * round, `${asked} requests`);
        }
        assert.equal((await sessions(tabs[1])).length, 1);
      });
    }

    test('asks again for an answer that was lost', async (t) => {
      const she = await person(t, client);
      const page = await she.tab();
      await signIn(page, she.login);
      await spoil(she, page);
      let lost = 0;
      await page.route('**/graphql', async (route) => {
        const sent = route.request();
        if (lost > 0 || !sent.postData()?.includes('Refresh')) return route.continue();
        lost++;
        const { status } = await exchange(sent.url(), { method: 'POST', headers: await sent.allHeaders(), body: sent.postData() });
        assert.equal(status, 200); // the token is used up
        return route.abort('connectionreset');
      });
      assert.equal(await me(page), she.login);
      assert.equal(lost, 1);
      assert.equal((await sessions(page)).length, 1);
      await spoil(she, page);
      assert.equal(await me(page), she.login);
    });

    test('stays signed in while the server is away', async (t) => {
      const she = await person(t, client);
      const page = await she.tab();
      await signIn(page, she.login);
      await spoil(she, page);
      await she.context.setOffline(true);
      const { code } = await page.evaluate(() =>
        globalThis.app.mutate('mutation Create { createThread(input: { subject: "never" }) { id } }').catch((e) => ({ code: e.message })),
      );
      assert.match(code, /Failed to fetch/);
      await she.context.setOffline(false);
      assert.equal(await me(page), she.login);
    });

    test('signs the other tab out as well', async (t) => {
      const she = await person(t, client);
      const tabs = [await she.tab(), await she.tab()];
      await signIn(tabs[0], she.login);
      await tabs[1].waitForFunction(() => globalThis.app.session.current());
      assert.equal(await me(tabs[1]), she.login);
      const elsewhere = await (await person(t, client)).tab();
      await signIn(elsewhere, she.login);
      assert.equal((await sessions(elsewhere)).length, 2);

      await expire(she, tabs[0]); // the session ends on the server all the same
      await signOut(tabs[0]);
      assert.equal((await sessions(elsewhere)).length, 1);
      await tabs[1].waitForFunction(() => !globalThis.app.session.current());
      assert.equal(await me(tabs[1]), null);
      const { code } = await tabs[1].evaluate(() => globalThis.app.query('query Sessions { sessions { id } }'));
      assert.equal(code, 'UNAUTHENTICATED');
    });

    test('learns at its start who is signed in', async (t) => {
      const she = await person(t, client);
      const page = await she.tab();
      const restored = async () => (await page.evaluate(() => globalThis.app.session.restore()))?.username;
      const known = () => page.evaluate(() => globalThis.app.session.current()?.user.username);
      assert.equal(await restored(), undefined);
      await signIn(page, she.login);
      assert.equal(await restored(), she.login);
      await spoil(she, page);
      assert.equal(await restored(), she.login);

      await page.evaluate(() => localStorage.clear());
      assert.equal(await restored(), storage === 'header' ? undefined : she.login);
      await signIn(page, she.login);
      await signOutEverywhere(she.login);
      assert.equal(await restored(), undefined);
      assert.equal(await known(), undefined);

      await signIn(page, she.login);
      if (!inCookies) return;
      await she.context.clearCookies(); // they have expired
      assert.equal(await known(), she.login);
      assert.equal(await restored(), undefined);
      assert.equal(await known(), undefined);
    });

    test('notices that the session was ended elsewhere', async (t) => {
      const here = await person(t, client);
      const page = await here.tab();
      const other = await (await person(t, client)).tab();
      await signIn(page, here.login);
      await signIn(other, here.login);
      assert.equal((await sessions(page)).length, 2);
      const { data } = await other.evaluate(() => globalThis.app.mutate('mutation Everywhere { logoutEverywhere }'));
      assert.equal(data.logoutEverywhere, 2);
      await me(page).catch(() => {}); // Apollo rejects what is under way when the user changes
      assert.equal(await me(page), null);
      assert.equal(await page.evaluate(() => globalThis.app.session.current()), undefined);
      await signIn(page, here.login);
      assert.equal(await me(page), here.login);
    });

    test('follows a thread over a socket, past the expiry of its token and a lost connection', async (t) => {
      const she = await person(t, client);
      const seen = []; // what went over sockets, for whoever has to find out why the test failed
      let connections = 0;
      let line;
      let opened;
      await she.context.routeWebSocket(/\/graphql$/, (socket) => {
        const number = ++connections;
        line = socket;
        const there = socket.connectToServer();
        for (const [name, from, to] of [['page', socket, there], ['server', there, socket]]) {
          const note = (what) => seen.push(`${new Date().toISOString()} socket ${number}, ${name}: ${what}`);
          from.onMessage((text) => {
            const { type, payload } = JSON.parse(text);
            note(`${type} ${payload?.expiresAt ?? ''}`);
            to.send(text);
          });
          from.onClose((code, reason) => {
            note(`closes ${code} ${reason}`);
            to.close({ code, reason });
          });
        }
        opened?.();
      });
      const page = await she.tab();
      await signIn(page, she.login);
      const id = await createThread(page);
      await page.evaluate((id) => globalThis.app.watch(id), id);
      await sees(page, 'new');

      // The socket presents the next token; nothing else asks for one.
      for (const _ of ['before the first expires', 'before the second does']) {
        await page.waitForRequest((sent) => sent.postData()?.includes('Refresh'));
      }
      await rename(page, id, 'after the expiry');
      await sees(page, 'after the expiry');
      assert.equal(connections, 1, seen.join('\n'));

      // The next socket is opened with a token that is no good: it is refused, and opened again with a new one.
      await spoil(she, page);
      const again = new Promise((resolve) => (opened = resolve));
      await line.close({ code: 4999, reason: 'lost' });
      await again;
      await rename(page, id, 'after a lost connection');
      await sees(page, 'after a lost connection');
      const events = await page.evaluate(() => globalThis.app.events);
      assert.deepEqual(events.filter(({ code }) => code), []);
      const changes = events.map(({ data }) => data.threadChanged).filter(({ kind }) => kind !== 'READY');
      assert.deepEqual(changes.map(({ kind, version }) => `${kind} ${version}`), ['SNAPSHOT 1', 'UPDATED 2', 'UPDATED 3']);
      assert.equal((await sessions(page)).length, 1);
    });

    test('shows a subscription nothing more once its session has ended', async (t) => {
      const she = await person(t, client);
      const page = await she.tab();
      const other = await she.tab();
      await signIn(page, she.login);
      const id = await createThread(page);
      await page.evaluate((id) => globalThis.app.watch(id), id);
      await sees(page, 'new');
      await signOut(other);
      await page.waitForFunction(() => globalThis.app.events.at(-1).code);
      assert.equal(await page.evaluate(() => globalThis.app.events.at(-1).code), 'UNAUTHENTICATED');
    });
  });
}
