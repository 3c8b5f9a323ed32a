// once.js, in each client, over a network that loses answers. TestKeysByClients runs it.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { gql as apolloGQL } from '@apollo/client';

import { createApolloClient } from '../clients/apollo.js';
import { createOnce } from '../clients/once.js';
import { createRelayEnvironment } from '../clients/relay.js';
import { createUrqlClient } from '../clients/urql.js';

const { BASE_URL: baseURL, TOKEN: token } = process.env;
const endpoint = `${baseURL}/graphql`;

// What the clients use of a session and of a socket that nobody opens.
const session = {
  current: () => ({ accessToken: token }),
  headers: () => ({ authorization: `Bearer ${token}` }),
  refresh: () => assert.fail('nothing is to be renewed'),
  onChange() {},
};
const socket = { subscribe: () => assert.fail('nothing is to be subscribed to') };

const create = 'mutation Add($subject: String!) { createThread(input: { subject: $subject }) { id version subject } }';

// network is a way to the server that loses the first answers, and remembers what was sent.
function network(lost) {
  const keys = [];
  const fetch = async (url, options) => {
    keys.push(new Headers(options.headers).get('idempotency-key'));
    const response = await globalThis.fetch(url, options);
    await response.arrayBuffer();
    if (keys.length <= lost) throw new TypeError('the answer is lost');
    return globalThis.fetch(url, options); // and once more, as a proxy may
  };
  return { fetch: createOnce({ fetch, pause: 1 }), keys };
}

async function ask(query, variables, fetch = globalThis.fetch) {
  const response = await fetch(endpoint, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...session.headers() },
    body: JSON.stringify({ query, variables }),
  });
  return response.json();
}

async function named(subject) {
  const { data } = await ask('query ($subject: String!) { threads(where: { subject: $subject }) { totalCount } }', { subject });
  return data.threads.totalCount;
}

// Each sends a mutation, with a key of the application's where there is one.
const clients = {
  async Apollo(options, variables, key) {
    const client = createApolloClient(session, socket, { endpoint, ...options });
    const context = key && { headers: { 'idempotency-key': key } };
    return (await client.mutate({ mutation: apolloGQL(create), variables, context })).data;
  },
  async urql(options, variables, key) {
    const client = createUrqlClient(session, socket, { endpoint, ...options });
    const context = key && { fetchOptions: { headers: { 'idempotency-key': key } } };
    const { data, error } = await client.mutation(create, variables, context).toPromise();
    if (error) throw error;
    return data;
  },
  async Relay(options, variables, key) {
    const network = createRelayEnvironment(session, socket, { endpoint, ...options }).getNetwork();
    const cacheConfig = key ? { metadata: { idempotencyKey: key } } : {};
    return (await network.execute({ name: 'Add', text: create, operationKind: 'mutation' }, variables, cacheConfig).toPromise()).data;
  },
};

for (const [name, mutate] of Object.entries(clients)) {
  test(`${name}: a mutation whose answers are lost is carried out once`, async () => {
    const { fetch, keys } = network(3);
    const { createThread: thread } = await mutate({ fetch }, { subject: name });
    assert.equal(thread.subject, name);
    assert.equal(thread.version, 1);
    assert.equal(await named(name), 1);
    assert.equal(keys.length, 4);
    assert.equal(new Set(keys).size, 1);
    assert.match(keys[0], /^[0-9a-f]{32}$/);

    await mutate({ fetch }, { subject: name });
    assert.equal(await named(name), 2, 'another one has another key');
  });

  test(`${name}: an application's own key has one effect, however often it is sent`, async () => {
    const subject = `${name} by key`;
    const first = await mutate({}, { subject }, `key of ${name}`.replaceAll(' ', '-'));
    const { fetch } = network(1);
    assert.deepEqual(await mutate({ fetch }, { subject }, `key of ${name}`.replaceAll(' ', '-')), first);
    assert.equal(await named(subject), 1);
  });

  test(`${name}: mutations have keys without its being asked for`, async (t) => {
    const keys = [];
    const fetch = globalThis.fetch;
    t.mock.method(globalThis, 'fetch', (url, options) => {
      keys.push(new Headers(options.headers).get('idempotency-key'));
      return fetch(url, options);
    });
    await mutate({}, { subject: `${name} by default` });
    assert.equal(keys.length, 1);
    assert.match(keys[0], /^[0-9a-f]{32}$/);
  });

  test(`${name}: at last it gives up`, async () => {
    const { fetch, keys } = network(Infinity);
    await assert.rejects(mutate({ fetch }, { subject: `${name} gives up` }));
    assert.equal(keys.length, 4);
    assert.equal(await named(`${name} gives up`), 1);
  });
}

test('what takes no key is sent as it is', async () => {
  for (const [query, data] of [
    ['query updateThread { me { username } }', { me: { username: 'ada' } }],
    ['mutation createThread { requestEmailVerification }', { requestEmailVerification: true }],
  ]) {
    const { fetch, keys } = network(0);
    assert.deepEqual((await ask(query, {}, fetch)).data, data);
    assert.deepEqual(keys, [null]);
  }
  const { fetch, keys } = network(1);
  await assert.rejects(ask('{ me { username } }', {}, fetch), TypeError);
  assert.deepEqual(keys, [null]);
});

// scripted answers with each of these in turn, an error by throwing it, and remembers what was sent.
function scripted(...answers) {
  const sent = [];
  return {
    sent,
    async fetch(url, options) {
      sent.push({ key: new Headers(options.headers).get('idempotency-key'), body: JSON.parse(options.body) });
      const answer = answers[Math.min(sent.length, answers.length) - 1];
      if (answer instanceof Error) throw answer;
      const { status = 200, type = 'application/json', ...body } = answer;
      return new Response('text' in body ? body.text : JSON.stringify(body), { status, headers: { 'content-type': type } });
    },
  };
}

const post = (fetch, body, options) => fetch(endpoint, { method: 'POST', body: JSON.stringify(body), ...options });
const lost = new TypeError('the answer is lost');
const done = { data: { createThread: { id: 'thread_1' } } };
const proxys = { status: 502, type: 'text/html', text: '<h1>Bad Gateway</h1>' };
const unavailable = (retryAfter) => ({
  status: 503, errors: [{ message: 'temporarily unavailable', extensions: { code: 'UNAVAILABLE', retryAfter } }], data: null,
});

test('a key that its caller has set is kept, and what has it is sent again', async () => {
  // Whatever it is named, and though it has no document.
  for (const body of [{ query: create }, { query: 'mutation { archive }' }, { documentId: 'x' }]) {
    const line = scripted(lost, done);
    await post(createOnce({ fetch: line.fetch, pause: 1 }), body, { headers: { 'Idempotency-Key': 'mine' } });
    assert.deepEqual(line.sent.map(({ key }) => key), ['mine', 'mine']);
    const inBody = scripted(lost, done);
    await post(createOnce({ fetch: inBody.fetch, pause: 1 }), { ...body, extensions: { idempotencyKey: 'mine' } });
    assert.deepEqual(inBody.sent.map(({ key, body }) => [key, body.extensions.idempotencyKey]), [[null, 'mine'], [null, 'mine']]);
  }
  // And the server knows it.
  const headers = { 'content-type': 'application/json', 'idempotency-key': 'kept-by-hand', ...session.headers() };
  const twice = [1, 2].map(() => post(createOnce(), { query: create, variables: { subject: 'by hand' } }, { headers }).then((r) => r.json()));
  const answers = await Promise.all(twice);
  assert.equal(answers[0].data.createThread.subject, 'by hand');
  assert.deepEqual(answers[0].data, answers[1].data);
  assert.deepEqual(answers.map(({ extensions }) => extensions?.replayed ?? false).sort(), [false, true]);
});

test('what else is a mutation of records can be said', async () => {
  const line = scripted(lost, done);
  const writes = ({ operationName }) => operationName?.endsWith('Mutation') ?? false;
  await post(createOnce({ fetch: line.fetch, pause: 1, writes }), { documentId: 'x', operationName: 'AddMutation' });
  assert.equal(line.sent.length, 2);
  assert.match(line.sent[0].key, /^[0-9a-f]{32}$/);
  const restore = scripted(lost, done);
  await post(createOnce({ fetch: restore.fetch, pause: 1 }), { query: 'mutation { restoreThread(id: "x", expectedVersion: 1) { id } }' });
  assert.equal(restore.sent.length, 2);
});

test('what a proxy answers in place of the server is no answer', async () => {
  for (const answer of [proxys, { status: 503, text: '' }, { status: 504, message: 'upstream request timeout' }]) {
    const line = scripted(answer, answer, done);
    const response = await post(createOnce({ fetch: line.fetch, pause: 1 }), { query: create });
    assert.deepEqual(await response.json(), done);
    assert.equal(new Set(line.sent.map(({ key }) => key)).size, 1);
    assert.equal(line.sent.length, 3);

    const never = scripted(answer);
    const last = await post(createOnce({ fetch: never.fetch, pause: 1, attempts: 2 }), { query: create });
    assert.equal(last.status, answer.status, 'the last one is handed on');
    assert.equal(never.sent.length, 2);
  }
  // Errors of the server's, and what is no mutation, are not sent again.
  const refusals = [
    { status: 401, errors: [{ message: 'no', extensions: { code: 'UNAUTHENTICATED' } }] },
    { status: 500, text: 'broken' },
    { errors: [{ message: 'no', extensions: { code: 'CONFLICT' } }], data: null },
    { errors: [{ message: 'no', extensions: { code: 'UNAVAILABLE' } }], data: { createThread: { owner: null } } }, // was carried out
    { status: 204, text: null },
  ];
  for (const answer of refusals) {
    const line = scripted(answer, done);
    const response = await post(createOnce({ fetch: line.fetch, pause: 1 }), { query: create });
    assert.equal(response.status, answer.status ?? 200);
    assert.equal(line.sent.length, 1);
  }
  const query = scripted(proxys, done);
  await post(createOnce({ fetch: query.fetch, pause: 1 }), { query: '{ me { id } }' });
  assert.equal(query.sent.length, 1);
});

test('UNAVAILABLE is tried again when the server says, within bounds', async (t) => {
  const waits = [];
  t.mock.method(globalThis, 'setTimeout', (f, ms) => {
    if (ms === 40_000) return undefined; // the limit of an attempt
    waits.push(ms);
    return queueMicrotask(f);
  });
  const line = scripted(unavailable(2), unavailable(), unavailable(0.1), done);
  assert.deepEqual(await (await post(createOnce({ fetch: line.fetch, pause: 100 }), { query: create })).json(), done);
  for (const [i, least] of [2050, 100, 300].entries()) assert.ok(waits[i] >= least && waits[i] < least + 100 * 2 ** i, `${waits}`);
  assert.equal(new Set(line.sent.map(({ key }) => key)).size, 1);

  waits.length = 0;
  const long = scripted(unavailable(61), done);
  const { errors } = await (await post(createOnce({ fetch: long.fetch }), { query: create })).json();
  assert.equal(errors[0].extensions.retryAfter, 61, 'who asked decides');
  assert.deepEqual(waits, []);
  assert.equal(long.sent.length, 1);
});

test('a mutation whose token expires while it is sent again has its key when that is renewed', async () => {
  const refusal = { status: 401, errors: [{ message: 'no', extensions: { code: 'UNAUTHENTICATED' } }] };
  const line = scripted(lost, refusal, done, done, refusal, done);
  const fetch = createOnce({ fetch: line.fetch, pause: 1 });
  assert.equal((await post(fetch, { query: create })).status, 401);
  for (let i = 0; i < 4; i++) await post(fetch, { query: create });
  const keys = line.sent.map(({ key }) => key);
  assert.deepEqual(keys.slice(0, 3), [keys[0], keys[0], keys[0]]);
  assert.equal(new Set(keys.slice(2)).size, 4, 'and each other one has its own');

  const byHand = scripted(lost, refusal, done);
  const other = createOnce({ fetch: byHand.fetch, pause: 1 });
  await post(other, { query: create }, { headers: { 'idempotency-key': 'mine' } });
  await post(other, { query: create });
  assert.notEqual(byHand.sent[2].key, 'mine', "nor has the application's for another");
});

test('nobody sends no key, and is told that nobody is signed in', async () => {
  const nobody = { ...session, current: () => undefined, headers: () => ({}) };
  const relay = createRelayEnvironment(nobody, socket, { endpoint }).getNetwork();
  const errors = [
    await createApolloClient(nobody, socket, { endpoint }).mutate({ mutation: apolloGQL(create), variables: { subject: 'x' } }).catch((e) => e.errors[0]),
    (await createUrqlClient(nobody, socket, { endpoint }).mutation(create, { subject: 'x' }).toPromise()).error.graphQLErrors[0],
    (await relay.execute({ name: 'Add', text: create, operationKind: 'mutation' }, { subject: 'x' }, {}).toPromise().catch((e) => e.source)).errors[0],
  ];
  for (const { extensions } of errors) assert.equal(extensions.code, 'UNAUTHENTICATED');
});

test('an attempt that is not answered is given up, and the next is made', async () => {
  let sent = 0;
  const silent = (url, { signal }) => new Promise((_, reject) => {
    sent++;
    signal.addEventListener('abort', () => reject(signal.reason));
  });
  await assert.rejects(post(createOnce({ fetch: silent, patience: 5, pause: 1 }), { query: create }), { name: 'TimeoutError' });
  assert.equal(sent, 4);

  // Also where the answer has begun.
  const begun = async (url, { signal }) => new Response(new ReadableStream({
    start(controller) {
      sent++;
      controller.enqueue(new TextEncoder().encode('{"data":'));
      signal.addEventListener('abort', () => controller.error(signal.reason));
    },
  }));
  await assert.rejects(post(createOnce({ fetch: begun, patience: 5, pause: 1 }), { query: create }), { name: 'TimeoutError' });
  assert.equal(sent, 8);
});

test('who leaves while it pauses is heard at once', async (t) => {
  const leaving = new AbortController();
  const line = scripted(lost);
  t.mock.method(globalThis, 'setTimeout', (f, ms) => {
    if (ms !== 40_000) queueMicrotask(() => leaving.abort(new Error('gone'))); // in the pause, which would not end
  });
  await assert.rejects(post(createOnce({ fetch: line.fetch }), { query: create }, { signal: leaving.signal }), /gone/);
  assert.equal(line.sent.length, 1);
});

test('a fragment may come first, and who gives up is heard', async () => {
  const leaving = new AbortController();
  const sent = [];
  const fetch = createOnce({
    async fetch(url, { headers }) {
      sent.push(headers.get('idempotency-key'));
      leaving.abort();
      throw new TypeError('there is no way');
    },
  });
  const body = JSON.stringify({ query: `fragment F on Thread { id }\n mutation A { createThread(input: {subject: "x"}) { ...F } }` });
  await assert.rejects(fetch(endpoint, { method: 'POST', body, signal: leaving.signal }), TypeError);
  assert.equal(sent.length, 1);
  assert.ok(sent[0]);
});
