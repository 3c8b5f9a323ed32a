// Server-sent events instead of a WebSocket, where something between does not let those pass, by graphql-sse.
import { createClient } from 'graphql-sse';

import { resuming } from './resume.js';

// createEvents takes the place of createSocket. singleConnection has all subscriptions share one stream, which a browser wants over
// HTTP/1.1, where it opens six connections at most, and of which every request has to reach the same server.
export function createEvents(session, { endpoint = '/graphql', credentials = 'same-origin', singleConnection = false } = {}) {
  let held;
  let refused = false;
  let after = 0; // s

  const events = createClient({
    url: endpoint,
    credentials,
    singleConnection,
    headers() {
      held = session.current();
      return session.headers(held);
    },
    // What is refused is tried again, by graphql-sse as well: with 401 after renewing tokens.
    async fetchFn(...request) {
      const response = await fetch(...request);
      refused = response.status === 401;
      after = Number(response.headers.get('retry-after')) || 0;
      return response;
    },
    retryAttempts: Infinity,
    async retry(retries) {
      if (refused) await session.refresh(held).catch(() => {});
      if (refused && retries === 0) return;
      await new Promise((resolve) => setTimeout(resolve, 1000 * after + Math.min(500 * 2 ** retries, 30_000) * Math.random()));
    },
  });
  return resuming(events);
}
