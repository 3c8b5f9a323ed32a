// What pages of other origins can do to who is signed in by cookies: nothing. A real browser, a real server at BASE_URL with
// AUTH_TOKEN_STORAGE=cookie, and empty pages at OTHER_URL and FRIEND_URL; the latter is in ALLOWED_ORIGINS. All three are
// on 127.0.0.1 and answer at localhost too: another port is another origin of the same site, for which cookies make no
// difference between ports, and the other name is another site. No request is intercepted: that would spoil preflights.
import assert from 'node:assert/strict';
import { EventEmitter, once } from 'node:events';
import { after, before, describe, test } from 'node:test';

import { baseURL, launch, password } from './browser.mjs';
import { bundle, start } from './clients/bundle.mjs';

const renamed = (url) => url.replace('127.0.0.1', 'localhost');
const other = process.env.OTHER_URL;
const friend = process.env.FRIEND_URL;

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());

// victim is a browser in which somebody is signed in at the program, under a name of its.
async function victim(t, base, login) {
  const context = await browser.newContext();
  t.after(() => context.close());
  const ask = async (query) => (await context.request.post(`${base}/graphql`, { data: { query } })).json();
  const { data } = await ask(`mutation { login(input: { login: "${login}", password: "${password}" }) { user { username } } }`);
  assert.equal(data.login.user.username, login);
  return {
    context,
    me: async () => (await ask('{ me { username } }')).data.me?.username,
    // made are the subjects of the threads that the tests made.
    async made() {
      const { data } = await ask('{ threads(first: 20, where: { subjectHasPrefix: "made by" }) { edges { node { subject } } } }');
      return data.threads.edges.map(({ node }) => node.subject);
    },
    async open(url) {
      const page = await context.newPage();
      await page.goto(url);
      return page;
    },
  };
}

// ask sends an operation as pages do.
function ask(page, url, query) {
  return page.evaluate(
    async ([url, query]) => {
      const response = await fetch(url, {
        method: 'POST',
        credentials: 'include',
        headers: { 'content-type': 'application/json' },
        body: JSON.stringify({ query }),
      });
      return response.json();
    },
    [url, query],
  );
}

const create = (by) => `mutation { createThread(input: { subject: "made by ${by}" }) { id } }`;

// attacks of a page against an endpoint. status is what the server must answer; where there is none, the browser must ask
// beforehand and then not send it.
const attacks = {
  'a form as text/plain': {
    status: 403,
    run: (page, endpoint) => submit(page, endpoint, 'text/plain', `{"query":${JSON.stringify(create('a form'))},"x":"`, '"}'),
  },
  'a form, urlencoded': {
    status: 403,
    run: (page, endpoint) => submit(page, endpoint, 'application/x-www-form-urlencoded', 'query', create('a form')),
  },
  'a form, multipart': {
    status: 403,
    run: (page, endpoint) => submit(page, endpoint, 'multipart/form-data', 'operations', JSON.stringify({ query: create('a form') })),
  },
  'a form by GET': {
    status: 405,
    run: (page, endpoint) => submit(page, endpoint, '', 'query', create('a form')),
  },
  'fetch with JSON': {
    run: (page, endpoint) => refused(page, endpoint, { method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ query: create('fetch') }) }),
  },
  'fetch with JSON as text/plain': {
    status: 403,
    run: (page, endpoint) => refused(page, endpoint, { method: 'POST', headers: { 'content-type': 'text/plain' }, body: JSON.stringify({ query: create('fetch') }) }),
  },
  'fetch without CORS': {
    status: 403,
    run: (page, endpoint) => blind(page, endpoint, { method: 'POST', body: JSON.stringify({ query: create('fetch') }) }),
  },
  'fetch with a type of no name': {
    status: 403,
    run: (page, endpoint) => page.evaluate(
      ([endpoint, query]) => fetch(endpoint, { method: 'POST', mode: 'no-cors', credentials: 'include', body: new Blob([JSON.stringify({ query })]) }).catch(() => {}),
      [endpoint, create('fetch')],
    ),
  },
  'sendBeacon': {
    status: 403,
    run: (page, endpoint) => page.evaluate(([endpoint, body]) => {
      navigator.sendBeacon(endpoint, new Blob([body], { type: 'text/plain' }));
    }, [endpoint, JSON.stringify({ query: create('a beacon') })]),
  },
  'fetch of a mutation by GET': {
    status: 405,
    run: (page, endpoint) => refused(page, `${endpoint}?query=${encodeURIComponent(create('GET'))}`, {}),
  },
  'an image': {
    status: 405,
    run: (page, endpoint) => page.evaluate((src) => new Promise((done) => {
      const image = new Image();
      image.onerror = done;
      image.onload = () => { throw new Error('it is no image'); };
      image.src = src;
    }), `${endpoint}?query=${encodeURIComponent(create('an image'))}`),
  },
  'fetch of what the victim may see': {
    status: 200, // which the page is not shown
    run: (page, endpoint) => refused(page, `${endpoint}?query={me{email}}`, {}),
  },
  'signing in as somebody else, as text/plain': {
    status: 403,
    run: (page, endpoint) => blind(page, endpoint, {
      method: 'POST',
      body: JSON.stringify({ query: `mutation { login(input: { login: "tim", password: "${password}" }) { user { id } } }` }),
    }),
  },
  'signing in as somebody else, with JSON': {
    run: (page, endpoint) => refused(page, endpoint, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({ query: `mutation { login(input: { login: "tim", password: "${password}" }) { user { id } } }` }),
    }),
  },
  'signing out': {
    status: 403,
    run: (page, endpoint) => blind(page, endpoint, { method: 'POST', body: '{"query":"mutation{logout}"}' }),
  },
  'signing out by GET': {
    status: 405,
    run: (page, endpoint) => blind(page, `${endpoint}?query=mutation{logout}`, {}),
  },
};

// submit sends a form of one field.
async function submit(page, action, enctype, name, value) {
  const loaded = page.waitForEvent('load');
  await page.evaluate(([action, enctype, name, value]) => {
    const form = document.createElement('form');
    Object.assign(form, { action, method: enctype ? 'post' : 'get', enctype });
    const input = document.createElement('input');
    Object.assign(input, { type: 'hidden', name, value });
    form.append(input);
    document.body.append(form);
    form.submit();
  }, [action, enctype, name, value]);
  await loaded;
}

// refused asserts that a page sees nothing of an answer.
async function refused(page, url, init) {
  const seen = await page.evaluate(([url, init]) => fetch(url, { credentials: 'include', ...init }).then((r) => r.text(), (e) => e.name), [url, init]);
  assert.equal(seen, 'TypeError');
}

// blind sends without asking to see the answer, of which nothing reaches the page.
async function blind(page, url, init) {
  await page.evaluate(([url, init]) => fetch(url, { mode: 'no-cors', credentials: 'include', ...init }).catch(() => {}), [url, init]);
}

// watch follows what the browser sends to an endpoint from a page, preflights apart: also what no script may see.
async function watch(page, endpoint) {
  const cdp = await page.context().newCDPSession(page);
  const sent = new Map();
  const statuses = new Map();
  const events = new EventEmitter();
  const answered = () => [...sent].filter(([id, { url, method }]) => url.startsWith(endpoint) && method !== 'OPTIONS' && statuses.has(id));
  cdp.on('Network.requestWillBeSent', ({ requestId, request }) => events.emit('change', sent.set(requestId, request)));
  cdp.on('Network.responseReceivedExtraInfo', ({ requestId, statusCode }) => events.emit('change', statuses.set(requestId, statusCode)));
  await cdp.send('Network.enable');
  return {
    answers: () => answered().map(([id]) => statuses.get(id)),
    // status is that of the first answer.
    async status() {
      while (answered().length === 0) await once(events, 'change', { signal: AbortSignal.timeout(10_000) });
      return this.answers()[0];
    },
  };
}

// socket opens a WebSocket and answers how it was closed, or 'open'.
function socket(page, endpoint) {
  return page.evaluate((url) => new Promise((done) => {
    const socket = new WebSocket(url, 'graphql-transport-ws');
    socket.onopen = () => socket.send('{"type":"connection_init"}');
    socket.onmessage = () => done('open');
    socket.onclose = ({ code }) => done(code);
  }), endpoint.replace('http', 'ws'));
}

const places = [
  ['another origin of the same site', baseURL, other, 'alan'],
  ['another site, localhost to 127.0.0.1', baseURL, renamed(other), 'barbara'],
  ['another site, 127.0.0.1 to localhost', renamed(baseURL), other, 'claude'],
  ['another origin of the site localhost', renamed(baseURL), renamed(other), 'dennis'],
];

for (const [place, base, origin, login] of places) {
  describe(`a page of ${place}`, () => {
    for (const [name, { status, run }] of Object.entries(attacks)) {
      test(name, async (t) => {
        const she = await victim(t, base, login);
        const cookies = await she.context.cookies();
        const page = await she.open(origin);
        const watched = await watch(page, `${base}/graphql`);

        await run(page, `${base}/graphql`);
        if (status) assert.equal(await watched.status(), status);
        else assert.deepEqual(watched.answers(), []);

        assert.equal(await she.me(), login);
        assert.deepEqual(await she.made(), []);
        assert.deepEqual(await she.context.cookies(), cookies);
      });
    }

    test('a WebSocket', async (t) => {
      const she = await victim(t, base, login);
      assert.equal(await socket(await she.open(origin), `${base}/graphql`), 1006); // there is no handshake
      assert.equal(await socket(await she.open(`${base}/playground/`), `${base}/graphql`), 'open');
    });

    test('a frame with the playground in it', async (t) => {
      const page = await (await victim(t, base, login)).open(origin);
      // A frame of another site is in another process, of which the driver hears after the page.
      const shown = page.waitForEvent('framenavigated', (frame) => frame !== page.mainFrame() && !['', 'about:blank'].includes(frame.url()));
      const loaded = page.evaluate((src) => new Promise((done) => {
        const frame = document.createElement('iframe');
        Object.assign(frame, { src, onload: done });
        document.body.append(frame);
      }), `${base}/playground/`);
      const [frame] = await Promise.all([shown, loaded]);
      assert.equal(new URL(frame.url()).protocol, 'chrome-error:');
    });
  });
}

test('a refusal says why', async (t) => {
  const page = await (await victim(t, baseURL, 'edsger')).open(other);
  await attacks['a form as text/plain'].run(page, `${baseURL}/graphql`);
  const { errors } = JSON.parse(await page.locator('body').innerText());
  assert.equal(errors[0].extensions.code, 'CSRF_REJECTED');
});

test('a page of the program itself needs JSON', async (t) => {
  const she = await victim(t, baseURL, 'edsger');
  const page = await she.open(`${baseURL}/playground/`);
  for (const type of ['text/plain', 'application/x-www-form-urlencoded']) {
    const status = await page.evaluate(([type, query]) =>
      fetch('/graphql', { method: 'POST', headers: { 'content-type': type }, body: JSON.stringify({ query }) }).then((r) => r.status), [type, create('text')]);
    assert.equal(status, 415);
  }
  assert.deepEqual(await she.made(), []);
});

test('scripts do not see the tokens', async (t) => {
  const she = await victim(t, baseURL, 'edsger');
  const page = await she.open(`${baseURL}/playground/`);
  assert.equal(await page.evaluate(() => document.cookie), '');
  const { data } = await ask(page, '/graphql', 'mutation { refresh { accessToken refreshToken user { username } } }');
  assert.deepEqual(data.refresh, { accessToken: null, refreshToken: null, user: { username: 'edsger' } });
  const cookies = await she.context.cookies();
  assert.deepEqual(cookies.map(({ name, httpOnly, sameSite }) => [name, httpOnly, sameSite]).sort(), [
    ['gs_access', true, 'Lax'],
    ['gs_refresh', true, 'Lax'],
  ]);
});

// The other way round: that all this is not refused for some other reason.
test('a page of an allowed origin may', async (t) => {
  const she = await victim(t, baseURL, 'frances');
  const page = await she.open(friend);
  const { data } = await ask(page, `${baseURL}/graphql`, create('a friend'));
  assert.match(data.createThread.id, /^thread_/);
  assert.deepEqual(await she.made(), ['made by a friend']);
  assert.equal((await ask(page, `${baseURL}/graphql`, '{ me { username } }')).data.me.username, 'frances');
  assert.equal(await socket(page, `${baseURL}/graphql`), 'open');
  assert.deepEqual((await ask(page, `${baseURL}/graphql`, 'mutation { logout }')).data, { logout: true });
  assert.equal(await she.me(), undefined);
});

for (const client of ['apollo', 'urql']) {
  test(`${client} works at an allowed origin`, async (t) => {
    const context = await browser.newContext();
    t.after(() => context.close());
    const page = await context.newPage();
    await page.goto(`${friend}/?${new URLSearchParams({ client, endpoint: `${baseURL}/graphql`, credentials: 'include' })}`);
    await start(page, await bundle());
    const me = async () => (await page.evaluate(() => globalThis.app.query('query Me { me { id username } }'))).data.me?.username;
    await page.evaluate((password) => globalThis.app.session.signIn({ login: 'grace', password }), password);
    assert.equal(await me(), 'grace');

    await context.clearCookies({ name: 'gs_access' }); // as when it expires
    const { data } = await page.evaluate((text) => globalThis.app.mutate(text), create('a friend'));
    await context.clearCookies({ name: 'gs_access' });
    await page.evaluate((id) => globalThis.app.watch(id), data.createThread.id);
    await page.waitForFunction(() => globalThis.app.events.length === 1);
    assert.equal(await page.evaluate(() => globalThis.app.events[0].data.threadChanged.kind), 'SNAPSHOT');

    await page.evaluate(() => globalThis.app.session.signOut());
    assert.equal(await me(), undefined);
    assert.deepEqual(await context.cookies(), []);
  });
}
