// What pages of other origins can do to who is signed in by cookies: nothing. A real browser, a real server at BASE_URL with
// AUTH_TOKEN_STORAGE=cookie, and empty pages at OTHER_URL and FRIEND_URL; the latter is in ALLOWED_ORIGINS. All three are
// on 127.0.0.1 and answer at localhost too: another port is another origin of the same site, for which cookies make no
// difference between ports, and the other name is another site. No request is intercepted: that would spoil preflights.
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { baseURL, launch, password } from './browser.mjs';

const renamed = (url) => url.replace('127.0.0.1', 'localhost');
const other = process.env.OTHER_URL;
const friend = process.env.FRIEND_URL;

let browser;
before(async () => {
  browser = await launch();
});
after(() => browser?.close());

// victim is somebody who is signed in at the program under a name of its, with a page of theirs.
async function victim(t, base, login) {
  const context = await browser.newContext();
  t.after(() => context.close());
  const page = await context.newPage();
  await page.goto(`${base}/playground/`);
  const { data } = await ask(page, '/graphql', `mutation { login(input: { login: "${login}", password: "${password}" }) { user { username } } }`);
  assert.equal(data.login.user.username, login);
  return { context, page };
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

// subjects of the threads of who asks that a test made.
async function made(page) {
  const { data } = await ask(page, '/graphql', '{ threads(first: 20, where: { subjectHasPrefix: "made by" }) { edges { node { subject } } } }');
  return data.threads.edges.map(({ node }) => node.subject);
}

async function me(page) {
  return (await ask(page, '/graphql', '{ me { username } }')).data.me?.username;
}

const create = (by) => `mutation { createThread(input: { subject: "made by ${by}" }) { id } }`;

// attacks of a page at an origin against an endpoint. Each answers what the page could see of it. status is what the
// server must say where the request gets that far; where it is missing, the browser must not send it.
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
      ([endpoint, query]) => fetch(endpoint, { method: 'POST', mode: 'no-cors', credentials: 'include', body: new Blob([JSON.stringify({ query })]) }).then(() => {}),
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
    status: 200, // the answer is nobody's: the page cannot read it, and nothing is changed
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

// submit sends a form of one field, in a window of its own, as it leads away.
async function submit(page, action, enctype, name, value) {
  const popup = page.waitForEvent('popup');
  await page.evaluate(([action, enctype, name, value]) => {
    const form = document.createElement('form');
    Object.assign(form, { action, method: enctype ? 'post' : 'get', enctype, target: '_blank' });
    const input = document.createElement('input');
    Object.assign(input, { type: 'hidden', name, value });
    form.append(input);
    document.body.append(form);
    form.submit();
  }, [action, enctype, name, value]);
  await (await popup).waitForLoadState();
}

// refused asserts that a page sees nothing of an answer.
async function refused(page, url, init) {
  const seen = await page.evaluate(([url, init]) => fetch(url, { credentials: 'include', ...init }).then((r) => r.text(), (e) => e.name), [url, init]);
  assert.equal(seen, 'TypeError');
}

// blind sends without asking to see the answer.
async function blind(page, url, init) {
  const type = await page.evaluate(([url, init]) => fetch(url, { mode: 'no-cors', credentials: 'include', ...init }).then((r) => r.type), [url, init]);
  assert.equal(type, 'opaque');
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
        const { context, page } = await victim(t, base, login);
        const before = await context.cookies();
        const attacker = await context.newPage();
        await attacker.goto(origin);

        const answer = context.waitForEvent('response', {
          predicate: (r) => r.request().method() !== 'OPTIONS' && r.url().startsWith(`${base}/graphql`) && r.frame() !== page.mainFrame(),
        });
        answer.catch(() => {}); // where none is awaited
        await run(attacker, `${base}/graphql`);
        if (status) {
          const response = await answer;
          assert.equal(response.status(), status);
          if (status === 403) assert.equal((await response.headerValue('set-cookie')), null);
        }

        assert.equal(await me(page), login);
        assert.deepEqual(await made(page), []);
        assert.deepEqual(await context.cookies(), before);
      });
    }

    test('a WebSocket', async (t) => {
      const { context, page } = await victim(t, base, login);
      const attacker = await context.newPage();
      await attacker.goto(origin);
      assert.equal(await socket(attacker, `${base}/graphql`), 1006); // there is no handshake
      assert.equal(await socket(page, `${base}/graphql`), 'open');
    });

    test('a frame with the playground in it', async (t) => {
      const { context } = await victim(t, base, login);
      const attacker = await context.newPage();
      await attacker.goto(origin);
      await attacker.evaluate((src) => new Promise((done) => {
        const frame = document.createElement('iframe');
        Object.assign(frame, { src, onload: done });
        document.body.append(frame);
      }), `${base}/playground/`);
      assert.equal(new URL(attacker.frames()[1].url()).protocol, 'chrome-error:');
    });
  });
}

test('a refusal says why', async (t) => {
  const { context, page } = await victim(t, baseURL, 'edsger');
  const attacker = await context.newPage();
  await attacker.goto(other);
  const popup = attacker.waitForEvent('popup');
  await attacks['a form as text/plain'].run(attacker, `${baseURL}/graphql`);
  const { errors } = JSON.parse(await (await popup).locator('body').innerText());
  assert.equal(errors[0].extensions.code, 'CSRF_REJECTED');
  assert.deepEqual(await made(page), []);
});

test('a page of the program itself needs JSON', async (t) => {
  const { page } = await victim(t, baseURL, 'edsger');
  for (const type of ['text/plain', 'application/x-www-form-urlencoded']) {
    const status = await page.evaluate(([type, query]) =>
      fetch('/graphql', { method: 'POST', headers: { 'content-type': type }, body: JSON.stringify({ query }) }).then((r) => r.status), [type, create('text')]);
    assert.equal(status, 415);
  }
  assert.deepEqual(await made(page), []);
});

test('scripts do not see the tokens', async (t) => {
  const { context, page } = await victim(t, baseURL, 'edsger');
  assert.equal(await page.evaluate(() => document.cookie), '');
  const { data } = await ask(page, '/graphql', 'mutation { refresh { accessToken refreshToken user { username } } }');
  assert.deepEqual(data.refresh, { accessToken: null, refreshToken: null, user: { username: 'edsger' } });
  const cookies = await context.cookies();
  assert.deepEqual(cookies.map(({ name, httpOnly, sameSite }) => [name, httpOnly, sameSite]).sort(), [
    ['gs_access', true, 'Lax'],
    ['gs_refresh', true, 'Lax'],
  ]);
});

// The other way round: that all this is not refused for some other reason.
test('a page of an allowed origin may', async (t) => {
  const { context, page } = await victim(t, baseURL, 'frances');
  const ally = await context.newPage();
  await ally.goto(friend);
  const { data } = await ask(ally, `${baseURL}/graphql`, create('a friend'));
  assert.match(data.createThread.id, /^thread_/);
  assert.deepEqual(await made(page), ['made by a friend']);
  assert.equal((await ask(ally, `${baseURL}/graphql`, '{ me { username } }')).data.me.username, 'frances');
  assert.equal(await socket(ally, `${baseURL}/graphql`), 'open');
  assert.deepEqual((await ask(ally, `${baseURL}/graphql`, 'mutation { logout }')).data, { logout: true });
  assert.equal(await me(page), undefined);
});
