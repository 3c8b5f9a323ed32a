// Relay with Godstack: queries and mutations over HTTP, subscriptions over a WebSocket, tokens renewed on the way.
import { commitLocalUpdate, Environment, Network, Observable, RecordSource, Store } from 'relay-runtime';

import { createOnce } from './once.js';

const attempts = 3;

// RecordStore never lets a record's version go back: an answer may come later than an event that is newer.
class RecordStore extends Store {
  publish(source, invalidated) {
    const held = this.getSource();
    for (const id of source.getRecordIDs()) {
      const record = source.get(id);
      if (record?.id && record.version < held.get(id)?.version) source.remove(id);
    }
    super.publish(source, invalidated);
  }
}

// document is what is asked for: a text, or, where the compiler persists documents, the id of one. graphql-ws wants a text in any case.
const document = (id, text) => (text ? { query: text } : { query: '', documentId: id });

// createRelayEnvironment returns an environment for who is signed in now: make a new one when session.onChange tells of another, for
// what one user may see is not for the next.
export function createRelayEnvironment(session, socket, options = {}) {
  const { endpoint = '/graphql', credentials = 'same-origin', fetch = createOnce({ signedIn: () => Boolean(session.current()) }) } = options;

  // Who gives a mutation a key of its own, as cacheConfig: { metadata: { idempotencyKey } }, sends it with that.
  async function ask({ id, name, text, operationKind }, variables, { metadata } = {}) {
    const key = metadata?.idempotencyKey;
    const extensions = key && { idempotencyKey: key };
    let renewed = false;
    for (let attempt = 1; ; ) {
      const held = session.current();
      let response;
      try {
        response = await fetch(endpoint, {
          method: 'POST',
          credentials,
          headers: { accept: 'application/graphql-response+json', 'content-type': 'application/json', ...session.headers(held) },
          body: JSON.stringify({ ...document(id, text), operationName: name, variables, extensions }),
        });
      } catch (error) {
        // There was no answer: a query may be asked again. A mutation may not, as it may have been carried out: createOnce has given it a
        // key, and has done what can be done.
        if (operationKind !== 'query' || attempt++ === attempts) throw error;
        await new Promise((resolve) => setTimeout(resolve, 250 * 2 ** attempt));
        continue;
      }
      if (response.status !== 401 || renewed) return response.json();
      // The access token is no longer good: renew it and ask once more, in the name of nobody where the session has ended.
      renewed = true;
      await session.refresh(held);
    }
  }

  function subscribe({ id, name, text }, variables) {
    return Observable.create((sink) =>
      socket.subscribe({ ...document(id, text), operationName: name, variables }, {
        next: (result) => sink.next(result),
        error: (error) => sink.error(Array.isArray(error) ? Object.assign(new Error(error[0].message), { errors: error }) : error),
        complete: () => sink.complete(),
      }),
    );
  }

  return new Environment({ network: Network.create(ask, subscribe), store: new RecordStore(new RecordSource()) });
}

// forget drops records, as a stream's RESYNC asks for; it is for follow.
export function forget(environment, records) {
  commitLocalUpdate(environment, (store) => {
    for (const { id } of records) store.delete(id);
  });
}
