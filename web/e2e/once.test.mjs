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

const clients = {
  async Apollo(fetch, variables) {
    const client = createApolloClient(session, socket, { endpoint, fetch });
    return (await client.mutate({ mutation: apolloGQL(create), variables })).data;
  },
  async urql(fetch, variables) {
    const { data, error } = await createUrqlClient(session, socket, { endpoint, fetch }).mutation(create, variables).toPromise();
    if (error) throw error;
    return data;
  },
  async Relay(fetch, variables) {
    const network = createRelayEnvironment(session, socket, { endpoint, fetch }).getNetwork();
    return (await network.execute({ name: 'Add', text: create, operationKind: 'mutation' }, variables, {}).toPromise()).data;
  },
};

for (const [name, mutate] of Object.entries(clients)) {
  test(`${name}: a mutation whose answers are lost is carried out once`, async () => {
    const { fetch, keys } = network(3);
    const { createThread: thread } = await mutate(fetch, { subject: name });
    assert.equal(thread.subject, name);
    assert.equal(thread.version, 1);
    assert.equal(await named(name), 1);
    assert.equal(keys.length, 4);
    assert.equal(new Set(keys).size, 1);
    assert.match(keys[0], /^[0-9a-f]{32}$/);

    await mutate(fetch, { subject: name });
    assert.equal(await named(name), 2, 'another one has another key');
  });

  test(`${name}: at last it gives up`, async () => {
    const { fetch, keys } = network(Infinity);
    await assert.rejects(mutate(fetch, { subject: `${name} gives up` }));
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
