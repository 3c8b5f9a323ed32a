// urql with Godstack: queries by GET, mutations by POST, subscriptions over a WebSocket, tokens renewed on the way.
import { cacheExchange, Client, fetchExchange, makeOperation, subscriptionExchange } from '@urql/core';
import { authExchange } from '@urql/exchange-auth';
import { retryExchange } from '@urql/exchange-retry';

import { createOnce } from './once.js';

// createUrqlClient returns a client for who is signed in now: make a new one when session.onChange tells of another, for
// what one user may see is not for the next.
export function createUrqlClient(session, socket, options = {}) {
  const { endpoint = '/graphql', credentials = 'same-origin', fetch = createOnce({ signedIn: () => Boolean(session.current()) }) } = options;

  const auth = authExchange(async ({ appendHeaders }) => {
    let refused;
    return {
      addAuthToOperation(operation) {
        const held = session.current();
        return appendHeaders(makeOperation(operation.kind, operation, { ...operation.context, held }), session.headers(held));
      },
      // HTTP 401 says that the access token is no longer good: urql renews it and asks once more, in the name of nobody
      // where the session has ended.
      didAuthError(error, operation) {
        if (error.response?.status !== 401) return false;
        refused = operation.context.held;
        return true;
      },
      refreshAuth: () => session.refresh(refused),
    };
  });

  return new Client({
    url: endpoint,
    fetch,
    fetchOptions: { credentials },
    exchanges: [
      cacheExchange,
      auth,
      // Where there was no answer, a query may be asked again. A mutation may not, as it may have been carried out: createOnce has
      // given it a key, and has done what can be done.
      retryExchange({
        maxNumberAttempts: 3,
        retryIf: (error, operation) => operation.kind === 'query' && Boolean(error.networkError) && !error.response,
      }),
      fetchExchange,
      subscriptionExchange({
        forwardSubscription: (request) => ({
          subscribe: (sink) => ({ unsubscribe: socket.subscribe({ ...request, query: request.query ?? '' }, sink) }),
        }),
      }),
    ],
  });
}
