// The clients of web/clients in Node, with one face for the tests, and a line to the program that can be cut.
import { execFile } from 'node:child_process';
import { cp, mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer, connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';

import { CombinedGraphQLErrors, gql as apolloGQL } from '@apollo/client';
import { gql as urqlGQL } from '@urql/core';
import { buildClientSchema, getIntrospectionQuery, printSchema } from 'graphql';
import relay from 'relay-runtime';
import { onEnd, pipe, subscribe as listen } from 'wonka';
import WebSocket from 'ws';

import { createApolloClient, forget as forgetInApollo } from '../../clients/apollo.js';
import { createEvents } from '../../clients/events.js';
import { createRelayEnvironment, forget as forgetInRelay } from '../../clients/relay.js';
import { createSession } from '../../clients/session.js';
import { createSocket } from '../../clients/socket.js';
import { createUrqlClient } from '../../clients/urql.js';
import * as operations from './operations.js';

// What the modules use of a browser and Node 20 has not; they take the rest as options.
globalThis.navigator ??= {};
globalThis.addEventListener ??= () => {};
globalThis.WebSocket ??= WebSocket; // Apollo Client's link looks for it

// openLine is a way to the program, which comes and goes: cut ends all connections, and while it is down there are none.
export async function openLine(target) {
  const open = new Set();
  let down = false;
  const server = createServer((near) => {
    if (down) return near.destroy();
    const { hostname, port } = new URL(target);
    const far = connect(port, hostname);
    for (const [from, to] of [[near, far], [far, near]]) {
      open.add(from);
      from.on('error', () => {});
      from.on('close', () => {
        open.delete(from);
        to.destroy();
      });
      from.pipe(to);
    }
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const cut = () => {
    for (const socket of open) socket.destroy();
  };
  return {
    url: `http://127.0.0.1:${server.address().port}`,
    cut,
    down() {
      down = true;
      cut();
    },
    up(to = target) {
      target = to;
      down = false;
    },
    close() {
      cut();
      server.close();
    },
  };
}

// compile has Relay's compiler read the operations, against the schema that the program tells.
export async function compile(baseURL) {
  const response = await fetch(`${baseURL}/graphql`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ query: getIntrospectionQuery() }),
  });
  const { data } = await response.json();
  const root = await mkdtemp(join(tmpdir(), 'relay-'));
  try {
    await mkdir(join(root, 'src/__generated__'), { recursive: true });
    await Promise.all([
      cp(join(import.meta.dirname, 'operations.js'), join(root, 'src/operations.js')),
      writeFile(join(root, 'schema.graphql'), printSchema(buildClientSchema(data))),
      writeFile(join(root, 'package.json'), '{ "type": "module" }'),
      writeFile(join(root, 'relay.config.json'), JSON.stringify({
        src: './src', schema: './schema.graphql', language: 'javascript', artifactDirectory: './src/__generated__', eagerEsModules: true,
      })),
    ]);
    const cli = join(import.meta.dirname, '../../node_modules/relay-compiler/cli.js');
    await promisify(execFile)(process.execPath, [cli, join(root, 'relay.config.json')], { cwd: root });
    const compiled = {};
    for (const [name, text] of Object.entries(operations)) {
      const [, operation] = /(operations\w+)/.exec(text);
      compiled[text] = (await import(join(root, `src/__generated__/${operation}.graphql.js`))).default;
      if (!compiled[text]) throw new Error(`${name} is not compiled`);
    }
    return compiled;
  } finally {
    await rm(root, { recursive: true });
  }
}

// memory is a storage of one's own.
function memory() {
  const items = new Map();
  return {
    getItem: (key) => items.get(key) ?? null,
    setItem: (key, value) => items.set(key, value),
    removeItem: (key) => items.delete(key),
  };
}

// Cookies of each origin, which Node's fetch keeps not.
const jars = new Map();
const direct = globalThis.fetch;
const held = new Map(); // by origin: what answers wait for

globalThis.fetch = async (url, options) => {
  const { origin } = new URL(url);
  const jar = jars.get(origin);
  const headers = new Headers(options?.headers);
  if (jar?.size) headers.set('cookie', cookies(jar));
  const response = await direct(url, { ...options, headers });
  for (const line of jar ? response.headers.getSetCookie() : []) {
    const [, name, value] = /^([^=]+)=([^;]*)/.exec(line);
    if (value) jar.set(name, value);
    else jar.delete(name);
  }
  await held.get(origin)?.();
  return response;
};

const cookies = (jar) => [...jar].map((pair) => pair.join('=')).join('; ');

// person is somebody with a client, and a line of their own. ping: false has the line swallow renewals of the socket's token.
export async function person(t, { client, target, ping = true, singleConnection, compiled }) {
  const line = await openLine(target);
  jars.set(line.url, new Map());
  const seen = { opened: 0, closed: [], renewals: 0 };
  class Socket extends WebSocket {
    constructor(url, protocols) {
      super(url, protocols, { headers: { cookie: cookies(jars.get(line.url)) } });
      this.on('open', () => seen.opened++);
      this.on('close', (code) => seen.closed.push(code));
    }

    send(text, ...rest) {
      if (text.startsWith('{"type":"ping"')) {
        seen.renewals++;
        if (!ping) return;
      }
      super.send(text, ...rest);
    }
  }
  const options = { endpoint: `${line.url}/graphql`, credentials: 'include' };
  const session = createSession({ ...options, storage: memory() });
  const socket = client === 'graphql-sse'
    ? createEvents(session, { ...options, singleConnection })
    : createSocket(session, { ...options, webSocketImpl: Socket });
  const face = faces[client]({ session, socket, options, compiled });
  const stops = new Set();
  t.after(() => {
    for (const stop of stops) stop();
    socket.dispose();
    face.end?.();
    line.close();
  });
  return {
    line,
    session,
    seen,
    ...face,
    // watch collects the changes of a subscription, and how it ended.
    watch(text, variables, take = () => {}) {
      const stream = { changes: [], error: undefined, complete: false };
      const stop = face.subscribe(text, variables, {
        next({ data, error }) {
          if (error) stream.error = error;
          if (!data) return;
          const [change] = Object.values(data);
          stream.changes.push(change);
          take(change);
        },
        error: (error) => (stream.error = error),
        complete: () => (stream.complete = true),
      });
      stops.add(stop);
      stream.stop = stop;
      return stream;
    },
    // lag holds back the answers of requests until the function that it returns is called.
    lag() {
      let release;
      const released = new Promise((resolve) => (release = resolve));
      let answered;
      const waits = new Promise((resolve) => (answered = resolve));
      held.set(line.url, () => {
        answered();
        return released;
      });
      return { waits, release: () => (held.delete(line.url), release()) };
    },
  };
}

// code of an error of any client: the first GraphQL error's, else what there is.
export function codeOf(error) {
  const errors = Array.isArray(error) ? error : (error?.errors ?? error?.graphQLErrors ?? error?.source?.errors);
  return errors?.[0]?.extensions?.code ?? error?.message ?? error;
}

// extensionsOf its first error.
const extensionsOf = (errors) => errors?.[0]?.extensions;

// Each client asks for { data, extensions, refusal }, the last being the extensions of the first error; subscribes as graphql-ws does; and
// has in its cache what cached returns, if it has one of records.
const faces = {
  'graphql-ws'({ session, socket, options }) {
    return {
      async ask(query, variables) {
        const answer = async () => {
          const held = session.current();
          const response = await fetch(options.endpoint, {
            method: 'POST',
            headers: { accept: 'application/graphql-response+json', 'content-type': 'application/json', ...session.headers(held) },
            body: JSON.stringify({ query, variables }),
          });
          if (response.status !== 401) return response.json();
          await session.refresh(held);
          return answer();
        };
        const { data, errors, extensions } = await answer();
        return { data, extensions, refusal: extensionsOf(errors) };
      },
      subscribe: (query, variables, sink) => socket.subscribe({ query, variables }, sink),
    };
  },
  apollo({ session, socket, options }) {
    const client = createApolloClient(session, socket, options);
    return {
      async ask(text, variables) {
        const document = apolloGQL(text);
        const mutates = document.definitions[0].operation === 'mutation';
        const { data, error, extensions } = await (mutates
          ? client.mutate({ mutation: document, variables, errorPolicy: 'all' })
          : client.query({ query: document, variables, fetchPolicy: 'network-only', errorPolicy: 'all' }));
        if (error && !CombinedGraphQLErrors.is(error)) throw error;
        return { data, extensions, refusal: extensionsOf(error?.errors) };
      },
      subscribe(text, variables, sink) {
        const subscription = client.subscribe({ query: apolloGQL(text), variables }).subscribe(sink);
        return () => subscription.unsubscribe();
      },
      cached(id) {
        const fragment = apolloGQL('fragment Held on Thread { id version subject }');
        return client.cache.readFragment({ id: `Thread:${id}`, fragment });
      },
      forget: (records) => forgetInApollo(client, records),
      end: () => client.stop(),
    };
  },
  urql({ session, socket, options }) {
    const client = createUrqlClient(session, socket, options);
    return {
      async ask(text, variables) {
        const mutates = text.includes('mutation');
        const { data, error, extensions } = await (mutates
          ? client.mutation(urqlGQL(text), variables)
          : client.query(urqlGQL(text), variables, { requestPolicy: 'network-only' })
        ).toPromise();
        if (error?.networkError) throw error;
        return { data, extensions, refusal: extensionsOf(error?.graphQLErrors) };
      },
      subscribe(text, variables, { next, complete }) {
        return pipe(client.subscription(urqlGQL(text), variables), onEnd(complete), listen(next)).unsubscribe;
      },
    };
  },
  relay({ session, socket, options, compiled }) {
    const environment = createRelayEnvironment(session, socket, options);
    return {
      ask(text, variables) {
        const node = compiled[text];
        if (node.params.operationKind === 'query') {
          return relay.fetchQuery(environment, node, variables, { fetchPolicy: 'network-only' }).toPromise().then((data) => ({ data }));
        }
        return new Promise((resolve, reject) => {
          relay.commitMutation(environment, {
            mutation: node,
            variables,
            onCompleted: (data) => resolve({ data }),
            onError: (error) => (error.source ? resolve({ data: null, refusal: extensionsOf(error.source.errors) }) : reject(error)),
          });
        });
      },
      subscribe: (text, variables, sink) => relay.requestSubscription(environment, {
        subscription: compiled[text],
        variables,
        onNext: (data) => sink.next({ data }),
        onError: (error) => sink.error(error),
        onCompleted: () => sink.complete(),
      }).dispose,
      cached(id) {
        const record = environment.getStore().getSource().get(id);
        return record && { id, version: record.version, subject: record.subject };
      },
      forget: (records) => forgetInRelay(environment, records),
    };
  },
};
faces['graphql-sse'] = faces['graphql-ws'];
