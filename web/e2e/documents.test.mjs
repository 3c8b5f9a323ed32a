// Persisted and trusted documents by the packages that applications use. BASE_URL executes any document, TRUSTED_URL those of MANIFEST alone.
// TestPersistedDocumentsByClients runs it.
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFile } from 'node:fs/promises';
import { test } from 'node:test';

import { ApolloClient, gql, HttpLink, InMemoryCache } from '@apollo/client';
import { PersistedQueryLink } from '@apollo/client/link/persisted-queries';
import { createClient } from 'graphql-ws';
import WebSocket from 'ws';

import { createRelayEnvironment } from '../clients/relay.js';
import { resuming } from '../clients/resume.js';

const { BASE_URL: baseURL, TRUSTED_URL: trustedURL, MANIFEST: manifest } = process.env;

const sha256 = (text) => createHash('sha256').update(text).digest('hex');

for (const useGETForHashedQueries of [false, true]) {
  test(`Apollo Client sends a document once, and its hash from then on, by ${useGETForHashedQueries ? 'GET' : 'POST'}`, async () => {
    const sent = [];
    const http = new HttpLink({
      uri: `${baseURL}/graphql`,
      fetch: async (url, options) => {
        const response = await fetch(url, options);
        sent.push({ method: options.method, withText: /"query":/.test(options.body ?? '') || /[?&]query=/.test(url), status: response.status });
        return response;
      },
    });
    const client = new ApolloClient({
      link: new PersistedQueryLink({ sha256: async (text) => sha256(text), useGETForHashedQueries }).concat(http),
      cache: new InMemoryCache(),
      defaultOptions: { query: { fetchPolicy: 'network-only' } },
    });
    const query = gql(`query Typename${useGETForHashedQueries ? 'ByGet' : 'ByPost'} { __typename }`);
    for (let i = 0; i < 3; i++) assert.equal((await client.query({ query })).data.__typename, 'Query');
    assert.deepEqual(sent.map(({ withText }) => withText), [false, true, false, false]);
    assert.equal(sent.at(-1).method, useGETForHashedQueries ? 'GET' : 'POST');
  });
}

// A session of nobody: what is trusted here shows nothing that nobody may not see.
const session = { current: () => undefined, headers: () => ({}), refresh: async () => {} };

test('Relay sends ids, over HTTP and over a socket', async (t) => {
  const documents = JSON.parse(await readFile(manifest, 'utf8'));
  const idOf = (name) => Object.keys(documents).find((id) => documents[id].includes(`${name}`));
  const sent = [];
  class Socket extends WebSocket {
    send(text, ...rest) {
      sent.push(JSON.parse(text));
      super.send(text, ...rest);
    }
  }
  const socket = resuming(createClient({ url: `${trustedURL.replace('http', 'ws')}/graphql`, webSocketImpl: Socket, retryAttempts: 0 }));
  t.after(() => socket.dispose());
  const environment = createRelayEnvironment(session, socket, { endpoint: `${trustedURL}/graphql` });
  const network = environment.getNetwork();
  const first = (observable) => new Promise((resolve, reject) => observable.subscribe({ next: resolve, error: reject }));

  const request = (name, operationKind) => ({ id: idOf(name), cacheID: name, name, operationKind, text: null, metadata: {} });
  const answer = await first(network.execute(request('MeQuery', 'query'), {}, {}));
  assert.deepEqual(answer, { data: { me: null } });

  await assert.rejects(first(network.execute(request('ThreadsSubscription', 'subscription'), { since: null }, {})), (error) => {
    assert.equal(error.errors[0].extensions.code, 'UNAUTHENTICATED'); // it was found, and is for those who are signed in
    return true;
  });
  const subscribed = sent.find(({ type }) => type === 'subscribe').payload;
  assert.equal(subscribed.query, '');
  assert.equal(subscribed.documentId, idOf('ThreadsSubscription'));
});

test('nothing but trusted documents is executed', async () => {
  const ask = async (body) => {
    const response = await fetch(`${trustedURL}/graphql`, {
      method: 'POST', headers: { 'content-type': 'application/json', accept: 'application/graphql-response+json' }, body: JSON.stringify(body),
    });
    return { status: response.status, ...(await response.json()) };
  };
  for (const body of [{ query: '{ __typename }' }, { query: '{ __schema { types { name } } }' }, { documentId: 'of nothing' }]) {
    const { status, errors } = await ask(body);
    assert.equal(status, 400);
    assert.equal(errors[0].extensions.code, 'UNTRUSTED_DOCUMENT');
  }
  assert.equal((await fetch(`${trustedURL}/playground/`)).status, 404);
  assert.equal((await fetch(`${trustedURL}/reset-password`)).status, 200);
  // What the pages of mails send: it is executed, and the token is no good.
  const { errors } = await ask({ query: 'mutation ($token: String!) { verifyEmail(token: $token) { accessToken user { name } } }', variables: { token: 'x' } });
  assert.notEqual(errors[0].extensions.code, 'UNTRUSTED_DOCUMENT');
});
