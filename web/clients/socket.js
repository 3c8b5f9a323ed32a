// The WebSocket of subscriptions, for any GraphQL client, by graphql-ws.
import { createClient } from 'graphql-ws';

import { resuming } from './resume.js';

// The server sends something every 20 s. A socket on which nothing came for longer is lost, though nobody said so.
const silence = 45_000; // ms

// createSocket opens a socket while there are subscriptions. It stays open past the expiry of the access token with which it was
// opened: the next token is presented before. The server closes it with 4403 when it has seen none, and when the session or the role
// ends: then tokens are renewed, together with requests that are refused meanwhile. A socket that is closed or lost is opened again,
// with the tokens of then, and its subscriptions go on where they were.
//
// webSocketImpl is for Node before 22: the class of the package ws.
export function createSocket(session, { endpoint = '/graphql', webSocketImpl } = {}) {
  const url = new URL(endpoint, globalThis.location?.href);
  url.protocol = url.protocol.replace('http', 'ws');
  let line; // the WebSocket
  let held; // what it was opened with, or was renewed with
  let refused = false;
  let busy = false;
  let renewal, watchdog; // timers

  function renewBefore(expiresAt) {
    clearTimeout(renewal);
    const left = Date.parse(expiresAt) - Date.now();
    // Else nobody is signed in, or a clock is wrong, and 4403 comes. Timers take no more than 24 days.
    if (left > 0) renewal = setTimeout(renew, Math.min(left * 0.7, 86_400_000));
  }

  async function renew() {
    const renewed = await session.refresh(held).catch(() => false);
    if (!renewed || line.readyState !== line.OPEN) return;
    held = session.current();
    // A cookie the server has seen by itself.
    if (held.accessToken) line.send(JSON.stringify({ type: 'ping', payload: session.headers(held) }));
    renewBefore(held.expiresAt);
  }

  const socket = createClient({
    webSocketImpl,
    url() {
      held = session.current(); // cookies are sent now
      return url.href;
    },
    connectionParams: () => session.headers(held),
    on: {
      connected(opened, payload) {
        line = opened;
        renewBefore(payload?.expiresAt);
      },
      message() {
        clearTimeout(watchdog);
        watchdog = setTimeout(() => socket.terminate(), silence);
      },
      closed({ code }) {
        clearTimeout(renewal);
        clearTimeout(watchdog);
        refused = code === 4403;
        busy = code === 1013;
      },
    },
    shouldRetry: () => true,
    retryAttempts: Infinity,
    async retryWait(retries) {
      // A second refusal is not for lack of a refresh: hence the pause. It is by chance, since all that a server had come at once.
      if (refused) await session.refresh(held).catch(() => {});
      if (refused && retries === 0) return;
      // A server that has too much to do, or knows too many sockets of this user, is not to be asked at once.
      if (busy) await new Promise((resolve) => setTimeout(resolve, 1000 + 4000 * Math.random()));
      await new Promise((resolve) => setTimeout(resolve, Math.min(500 * 2 ** retries, 30_000) * Math.random()));
    },
  });
  session.onChange(() => socket.terminate()); // and open it in the name of who is signed in now
  return resuming(socket);
}
