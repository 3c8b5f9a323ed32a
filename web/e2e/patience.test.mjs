// Clients of a server that has too much to do, until IDLE_URL is asked. TestClientsArePatient runs it.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { gql as apolloGQL } from '@apollo/client';

import './clients/node.mjs'; // what Node has not
import { createApolloClient } from '../clients/apollo.js';
import { createOnce } from '../clients/once.js';
import { createPatient, pause } from '../clients/patience.js';
import { createRelayEnvironment } from '../clients/relay.js';
import { createSession } from '../clients/session.js';
import { createFetch } from '../clients/standby.js';
import { createUrqlClient } from '../clients/urql.js';

const { BASE_URL: baseURL, IDLE_URL: idleURL, TOKEN: token, PASSWORD: password } = process.env;
const endpoint = `${baseURL}/graphql`;

const session = {
  current: () => ({ accessToken: token }),
  headers: () => ({ authorization: `Bearer ${token}` }),
  refresh: () => assert.fail('nothing is to be renewed'),
  onChange() {},
};
const socket = { subscribe: () => assert.fail('nothing is to be subscribed to') };

const query = 'query Quick { threads(first: 1) { totalCount } }';
const mutation = 'mutation Add($subject: String!) { createThread(input: { subject: $subject }) { id subject } }';

const ask = (fetch, text, variables) => fetch(endpoint, {
  method: 'POST',
  headers: { 'content-type': 'application/json', ...session.headers() },
  body: JSON.stringify({ query: text, variables }),
}).then((response) => response.json());

// Each asks by a fetch that the test looks at, or by that of all.
const asking = {
  async Apollo() {
    const { data } = await createApolloClient(session, socket, { endpoint }).mutate({ mutation: apolloGQL(mutation), variables: { subject: 'Apollo' } });
    return data.createThread.subject;
  },
  async urql() {
    const { data } = await createUrqlClient(session, socket, { endpoint }).mutation(mutation, { subject: 'urql' }).toPromise();
    return data.createThread.subject;
  },
  async Relay() {
    const network = createRelayEnvironment(session, socket, { endpoint }).getNetwork();
    const { data } = await network.execute({ name: 'Quick', text: query, operationKind: 'query' }, {}, {}).toPromise();
    return data.threads && 'Relay';
  },
  async once() {
    return (await ask(createOnce(), mutation, { subject: 'once' })).data.createThread.subject;
  },
  async standby() {
    return (await ask(createFetch({ storage: undefined }), query)).data.threads && 'standby';
  },
  async session() {
    const held = new Map();
    const storage = { getItem: (key) => held.get(key) ?? null, setItem: (key, value) => held.set(key, value), removeItem: (key) => held.delete(key) };
    const user = await createSession({ endpoint, storage }).signIn({ login: 'ada', password });
    return user.username === 'ada' && 'session';
  },
};

test('what the server refuses is sent again when it says, and done once', async () => {
  const real = globalThis.fetch;
  const refused = [];
  let allRefused;
  const told = new Promise((resolve) => { allRefused = resolve; });
  globalThis.fetch = async (...request) => {
    const response = await real(...request);
    if (response.status === 503) {
      refused.push(Number(response.headers.get('retry-after')));
      if (refused.length === Object.keys(asking).length) allRefused();
    }
    return response;
  };
  const answers = Promise.all(Object.values(asking).map((ask) => ask()));
  await Promise.race([told, answers]);
  assert.equal(refused.length, Object.keys(asking).length, 'each is refused at first');
  for (const after of refused) assert.ok(after >= 1 && after <= 5, `Retry-After: ${after}`);
  await real(idleURL, { method: 'POST' });
  assert.deepEqual(await answers, Object.keys(asking));
  globalThis.fetch = real;
  for (const subject of ['Apollo', 'urql', 'once']) {
    const { data } = await ask(real, 'query ($subject: String!) { threads(where: { subject: $subject }) { totalCount } }', { subject });
    assert.equal(data.threads.totalCount, 1, subject);
  }
});

test('patience ends', async () => {
  const asked = [];
  const refusing = (status, after) => async () => {
    asked.push(status);
    return new Response('{}', { status, headers: after === undefined ? {} : { 'retry-after': after } });
  };
  for (const [status, after, times] of [[503, '0.001', 2], [503, undefined, 1], [503, '61', 1], [503, 'Tue, 24 Nov 2026 00:00:00 GMT', 1], [429, '1', 1], [200, '1', 1]]) {
    asked.length = 0;
    const response = await createPatient({ fetch: refusing(status, after), attempts: 2 })(endpoint, {});
    assert.equal(response.status, status);
    assert.equal(asked.length, times, `${status} ${after}`);
  }
  const leaving = new AbortController();
  const asks = createPatient({ fetch: refusing(503, '60') })(endpoint, { signal: leaving.signal });
  leaving.abort(new Error('enough'));
  await assert.rejects(asks, /enough/);
  await assert.rejects(pause(60_000, AbortSignal.abort(new Error('enough'))), /enough/);
  await pause(1);
});
