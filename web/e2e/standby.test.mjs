// standby.js against two nodes whose standby has stopped replaying. TestReadReplicaByClients runs it.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { createFetch } from '../clients/standby.js';

const { BASE_URL: one, OTHER_URL: other, TOKEN: token, THREAD: id } = process.env;

async function ask(fetch, node, query) {
  const response = await fetch(`${node}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${token}` },
    body: JSON.stringify({ query, variables: { id } }),
  });
  const { data, errors } = await response.json();
  assert.equal(errors, undefined);
  return data.thread?.subject;
}

const read = 'query($id: ID!) { thread(id: $id) { subject } }';
const write = (version, subject) =>
  `mutation($id: ID!) { updateThread(id: $id, expectedVersion: ${version}, input: {subject: "${subject}"}) { version } }`;

// through runs f over a network that does that to answers.
async function through(network, f) {
  const { fetch } = globalThis;
  globalThis.fetch = async (...request) => network(await fetch(...request));
  try {
    return await f();
  } finally {
    globalThis.fetch = fetch;
  }
}

function tabs() {
  const items = new Map();
  const storage = { getItem: (key) => items.get(key) ?? null, setItem: (key, value) => items.set(key, value) };
  return { tab: createFetch({ storage }), another: createFetch({ storage }), seen: () => items.get('godstack.seen') };
}

test('what is written is read, by all tabs', async () => {
  const { tab, another, seen } = tabs();
  const alone = createFetch();
  const stranger = createFetch();
  for (const fetch of [tab, another, alone, stranger]) assert.equal(await ask(fetch, one, read), 'one');
  assert.equal(seen().length, 24);

  await ask(tab, one, write(1, 'two'));
  // An answer that comes late, of what was asked before, changes nothing.
  for (const node of [one, other, one]) {
    assert.equal(await ask(tab, node, read), 'two');
    assert.equal(await ask(another, node, read), 'two');
    assert.equal(await ask(fetch, node, read), 'two', 'without it the primary answers');
    assert.equal(await ask(stranger, node, read), 'one', 'the standby answers who has not seen it');
  }
});

test('what is written is read, where nobody said so', async () => {
  const { tab, another, seen } = tabs();
  assert.equal(await ask(tab, one, read), 'one');
  const lose = () => {
    throw new TypeError('the answer is lost');
  };
  await assert.rejects(through(lose, () => ask(tab, one, write(2, 'three'))), TypeError);
  assert.ok(seen().startsWith('ffffffff'));
  for (const fetch of [another, tab]) {
    assert.equal(await ask(fetch, other, read), 'three');
    assert.ok(seen().startsWith('0000'), 'it is told where the primary is');
  }

  const proxied = createFetch();
  await through(async (response) => new Response(await response.text(), { status: response.status }), async () => {
    assert.equal(await ask(proxied, one, read), 'one');
    await ask(proxied, one, write(3, 'four'));
    assert.equal(await ask(proxied, one, read), 'four');
    assert.equal(await ask(proxied, one, read), 'four', 'the primary answers who is told nothing');
  });
});
