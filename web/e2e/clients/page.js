// The page that clients.test.mjs drives: one of the clients of web/clients, chosen by the address, with one face for the
// tests. It runs at the origin of the program, as an application would, or with its endpoint and credentials at another.
import { gql as apolloGQL } from '@apollo/client';
import { gql as urqlGQL } from '@urql/core';
import { pipe, subscribe as listen } from 'wonka';

import { createApolloClient } from '../../clients/apollo.js';
import { createSession } from '../../clients/session.js';
import { createSocket } from '../../clients/socket.js';
import { createUrqlClient } from '../../clients/urql.js';

const { client: name, ...options } = Object.fromEntries(new URL(location.href).searchParams);
const session = createSession(options);
const socket = createSocket(session, options);

// Each client answers { data, code }, the code of the first error; without one of the server's, its message.
const clients = {
  apollo() {
    const client = createApolloClient(session, socket, options);
    const settle = ({ data, error }) => ({ data, code: error && (error.errors?.[0].extensions?.code ?? error.message) });
    return {
      query: (text) => client.query({ query: apolloGQL(text), fetchPolicy: 'network-only', errorPolicy: 'all' }).then(settle),
      mutate: (text, variables) => client.mutate({ mutation: apolloGQL(text), variables, errorPolicy: 'all' }).then(settle),
      subscribe: (text, variables, take) =>
        client.subscribe({ query: apolloGQL(text), variables }).subscribe({ next: (result) => take(settle(result)) }),
    };
  },
  urql() {
    let client = createUrqlClient(session, socket, options);
    session.onChange(() => {
      client = createUrqlClient(session, socket, options);
    });
    const settle = ({ data, error }) => ({ data, code: error && (error.graphQLErrors[0]?.extensions.code ?? error.message) });
    return {
      query: (text) => client.query(urqlGQL(text), {}, { requestPolicy: 'network-only' }).toPromise().then(settle),
      mutate: (text, variables) => client.mutation(urqlGQL(text), variables).toPromise().then(settle),
      subscribe: (text, variables, take) =>
        pipe(client.subscription(urqlGQL(text), variables), listen((result) => take(settle(result)))),
    };
  },
};

const events = [];
globalThis.app = {
  ...clients[name](),
  session,
  events, // of watch
  watch(id) {
    const text = `subscription Watch($id: ID!, $since: Cursor) {
      threadChanged(id: $id, since: $since) { kind recordId version cursor thread { id version subject } }
    }`;
    this.subscribe(text, { id }, (result) => events.push(result));
  },
};
