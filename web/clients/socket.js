// The WebSocket of subscriptions, for any GraphQL client, by graphql-ws.
import { createClient } from 'graphql-ws';

// createSocket opens a socket while there are subscriptions. The server closes it with 4403 when the access token expires with
// which it was opened, and when the session ends: then tokens are renewed, together with requests that are refused meanwhile.
// A socket that is closed or lost is opened again, with the tokens of then, and its subscriptions start anew.
export function createSocket(session, { endpoint = '/graphql' } = {}) {
  const url = new URL(endpoint, location.href);
  url.protocol = url.protocol.replace('http', 'ws');
  let held; // what the socket was opened with
  let refused = false;

  const socket = createClient({
    url() {
      held = session.current(); // cookies are sent now
      return url.href;
    },
    connectionParams: () => session.headers(held),
    on: {
      closed({ code }) {
        refused = code === 4403;
      },
    },
    shouldRetry: () => true,
    retryAttempts: Infinity,
    async retryWait(retries) {
      // A second refusal is not for lack of a refresh: hence the pause.
      if (refused) await session.refresh(held).catch(() => {});
      if (retries > 0) {
        const pause = Math.min(500 * 2 ** retries, 30_000);
        await new Promise((resolve) => setTimeout(resolve, pause * (0.5 + Math.random())));
      }
    },
  });
  session.onChange(() => socket.terminate()); // and open it in the name of who is signed in now
  return socket;
}
