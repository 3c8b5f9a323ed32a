// Apollo Client with Godstack: queries and mutations over HTTP, subscriptions over a WebSocket, tokens renewed on the way.
import { ApolloClient, ApolloLink, gql, HttpLink, InMemoryCache } from '@apollo/client';
import { SetContextLink } from '@apollo/client/link/context';
import { ErrorLink } from '@apollo/client/link/error';
import { RetryLink } from '@apollo/client/link/retry';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { OperationTypeNode } from 'graphql';
import { from, switchMap } from 'rxjs';

import { createOnce } from './once.js';

// RecordCache never lets a record's version go back: an answer may come later than an event that is newer.
class RecordCache extends InMemoryCache {
  write(options) {
    const newer = new Map();
    for (const record of versioned(options.result)) {
      const id = this.identify(record);
      const held = this.readFragment({ id, fragment: gql(`fragment Version on ${record.__typename} { version }`) });
      if (record.version < held?.version) newer.set(id, this.extract()[id]);
    }
    if (newer.size === 0) return super.write(options);
    let written;
    this.batch({
      update: () => {
        written = super.write(options);
        // What was not held goes with the older version: whoever wants it asks again.
        for (const [id, held] of newer) {
          this.modify({ id, fields: (_, { storeFieldName, DELETE }) => (storeFieldName in held ? held[storeFieldName] : DELETE) });
        }
      },
    });
    return written;
  }
}

// versioned finds all records in an answer that tell their version.
function* versioned(value) {
  if (value === null || typeof value !== 'object') return;
  if (value.__typename && value.id && value.version) yield value;
  for (const inner of Object.values(value)) yield* versioned(inner);
}

export function createApolloClient(session, socket, options = {}) {
  const { endpoint = '/graphql', credentials = 'same-origin', fetch = createOnce({ signedIn: () => Boolean(session.current()) }) } = options;

  const authorize = new SetContextLink(({ headers }) => {
    const held = session.current();
    return { held, response: undefined, headers: { ...headers, ...session.headers(held) } };
  });

  // HTTP 401 says that the access token is no longer good: renew it and ask once more, in the name of nobody where the
  // session has ended.
  const renew = new ErrorLink(({ operation, forward }) => {
    const { response, held, renewed } = operation.getContext();
    if (response?.status !== 401 || renewed) return;
    const again = () => {
      operation.setContext({ renewed: true });
      return forward(operation);
    };
    return from(session.refresh(held)).pipe(switchMap(again));
  });

  // Where there was no answer, which is a TypeError of fetch, a query may be asked again. A mutation may not, as it may have
  // been carried out: createOnce has given it a key, and has done what can be done.
  const retry = new RetryLink({
    attempts: {
      max: 3,
      retryIf: (error, { operationType }) => operationType === OperationTypeNode.QUERY && error instanceof TypeError,
    },
  });

  const client = new ApolloClient({
    cache: new RecordCache(),
    link: ApolloLink.split(
      ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION,
      new GraphQLWsLink(socket),
      ApolloLink.from([retry, renew, authorize, new HttpLink({ uri: endpoint, credentials, fetch })]),
    ),
  });
  // What one user may see is not for the next. Queries that were under way are rejected.
  session.onChange(() => client.resetStore().catch(() => {}));
  return client;
}

// forget drops records, as a stream's RESYNC asks for; it is for follow.
export function forget({ cache }, records) {
  for (const record of records) cache.evict({ id: cache.identify(record) });
  cache.gc();
}
