// Streams that lose nothing when a connection is lost, for graphql-ws and graphql-sse, and so for all GraphQL clients on them.

// resuming is a client whose subscribe goes on where it was when it has connected again: nothing is missing, and nothing comes twice. A
// subscription takes part that has a variable $since, gives it to the field's argument, and selects the cursor:
//
//   subscription Watch($id: ID!, $since: Cursor) {
//     threadChanged(id: $id, since: $since) { kind recordId version cursor thread { id version subject } }
//   }
//
// A subscription that the server ends with an error that says when to try again, as when its database is away, goes on then.
export function resuming(client) {
  return {
    ...client,
    subscribe(payload, sink) {
      // Of a document that is named by its id, the variables tell: they have since, null at first.
      const resumes = payload.query ? /\$since\s*:/.test(payload.query) : 'since' in (payload.variables ?? {});
      if (!resumes) return client.subscribe(payload, sink);
      // Both clients write this out whenever they subscribe, also when they do so again.
      const variables = { ...payload.variables };
      let stop;
      const begin = () => {
        stop = client.subscribe({ ...payload, variables }, {
          next(result) {
            for (const change of Object.values(result.data ?? {})) variables.since = change?.cursor ?? variables.since;
            sink.next(result);
          },
          error(error) {
            const pause = Array.isArray(error) ? error[0].extensions?.retryAfter : undefined; // s
            if (pause === undefined) return sink.error(error);
            const timer = setTimeout(begin, pause * 1000);
            stop = () => {
              clearTimeout(timer);
              sink.complete();
            };
          },
          complete: () => sink.complete(),
        });
      };
      begin();
      return () => stop();
    },
  };
}

// follow brings what is held of a stream up to date with one of its events: it returns a new Map of records by id, or the same where
// nothing has changed. The event has to select kind, recordId and, of the record, id.
//
// On RESYNC what is held is to be dropped, since versions may have gone back: a normalizing cache has to forget it as well.
export function follow(held, change, forget = () => {}) {
  const { kind, recordId } = change;
  if (kind === 'READY') return held;
  if (kind === 'RESYNC') {
    forget([...held.values()]);
    return new Map();
  }
  const record = Object.values(change).find((value) => value?.id === recordId);
  const next = new Map(held);
  if (record) next.set(recordId, record);
  else next.delete(recordId);
  return next;
}
