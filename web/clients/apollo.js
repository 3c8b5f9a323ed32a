// Apollo Client with Godstack: queries and mutations over HTTP, subscriptions over a WebSocket, tokens renewed on the way.
import { ApolloClient, ApolloLink, HttpLink, InMemoryCache } from '@apollo/client';
import { SetContextLink } from '@apollo/client/link/context';
import { ErrorLink } from '@apollo/client/link/error';
import { RetryLink } from '@apollo/client/link/retry';
import { GraphQLWsLink } from '@apollo/client/link/subscriptions';
import { OperationTypeNode } from 'graphql';
import { from, switchMap } from 'rxjs';

export function createApolloClient(session, socket, { endpoint = '/graphql', credentials = 'same-origin' } = {}) {
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

  // Where there was no answer, which is a TypeError of fetch, a query may be asked again. A mutation may not: it may have
  // been carried out.
  const retry = new RetryLink({
    attempts: {
      max: 3,
      retryIf: (error, { operationType }) => operationType === OperationTypeNode.QUERY && error instanceof TypeError,
    },
  });

  const client = new ApolloClient({
    cache: new InMemoryCache(),
    link: ApolloLink.split(
      ({ operationType }) => operationType === OperationTypeNode.SUBSCRIPTION,
      new GraphQLWsLink(socket),
      ApolloLink.from([retry, renew, authorize, new HttpLink({ uri: endpoint, credentials })]),
    ),
  });
  // What one user may see is not for the next. Queries that were under way are rejected.
  session.onChange(() => client.resetStore().catch(() => {}));
  return client;
}
