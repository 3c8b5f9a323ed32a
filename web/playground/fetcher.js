// This file carries GraphiQL's operations: queries and mutations by POST, subscriptions by graphql-transport-ws, both to
// this origin. What goes wrong on the way is an answer too, so that it is shown where an answer is.
import { getOperationAST, parse } from 'graphql';
import { createClient } from 'graphql-ws';

import { session } from './account.js';

const endpoint = new URL('/graphql', location.href);
const socketEndpoint = new URL(endpoint);
socketEndpoint.protocol = endpoint.protocol.replace('http', 'ws');

const eventsShown = 50;

export function fetcher(operation, { headers = {} } = {}) {
  const ast = findOperation(operation);
  if (ast?.name) operation = { ...operation, operationName: ast.name.value };
  return ast?.operation === 'subscription' ? subscribe(operation, headers) : post(operation, headers);
}

// findOperation does not trust GraphiQL's operationName and documentAST: for a moment after a change of tabs they are still
// those of the tab before.
function findOperation({ query, operationName }) {
  let document;
  try {
    document = parse(query);
  } catch {
    return null; // the server tells what is wrong with it
  }
  return getOperationAST(document, operationName) ?? getOperationAST(document);
}

// post answers the GraphQL response, also one with an HTTP status that says failure.
export async function post(operation, headers) {
  let response;
  try {
    response = await send(operation, headers);
  } catch (error) {
    return failure(`The server at ${endpoint.host} did not answer: ${error.message}.`);
  }
  const body = await response.text();
  try {
    return JSON.parse(body);
  } catch {
    return failure(`HTTP ${response.status} ${response.statusText}`.trim(), { body: body.slice(0, 2000) });
  }
}

// send sends in the name of who is signed in, unless headers name somebody. Tokens that are refused are renewed.
async function send(operation, headers) {
  const ask = (held) =>
    fetch(endpoint, {
      method: 'POST',
      headers: {
        accept: 'application/graphql-response+json, application/json;q=0.9',
        'content-type': 'application/json',
        ...(!authorizes(headers) && session.headers(held)),
        ...headers,
      },
      body: JSON.stringify(operation),
    });
  const held = session.current();
  const response = await ask(held);
  if (response.status !== 401 || authorizes(headers)) return response;
  await session.refresh(held);
  return ask(session.current());
}

// authorizes reports whether headers say who asks.
function authorizes(headers) {
  return Object.keys(headers).some((name) => name.toLowerCase() === 'authorization');
}

// subscribe answers an observable of what is to be shown: how the connection is, and the events, newest first.
function subscribe(operation, headers) {
  return {
    subscribe(observer) {
      let connection = 'connecting';
      let running = true;
      const events = [];
      const show = () => running && observer.next({ connection, events });
      const connectionIs = (text) => {
        connection = text;
        show();
      };
      const end = (text) => {
        connectionIs(text);
        observer.complete();
        stop();
      };

      // One socket a run: a socket keeps the headers with which it was opened. Where it is refused, tokens are renewed,
      // once; who has no better ones stays refused.
      let held;
      let renewal;
      const client = createClient({
        url() {
          held = session.current();
          return socketEndpoint.href;
        },
        connectionParams: () => connectionParams({ ...(!authorizes(headers) && session.headers(held)), ...headers }),
        // A few times with growing pauses, also while a server starts anew.
        shouldRetry({ code }) {
          if (code !== 4403) return true;
          if (renewal || authorizes(headers)) return false;
          renewal = session.refresh(held);
          return true;
        },
        async retryWait(retries) {
          if (renewal) await renewal.catch(() => {});
          else await new Promise((resolve) => setTimeout(resolve, 1000 * 2 ** retries));
        },
        on: {
          connected() {
            renewal = undefined;
            connectionIs('open');
          },
          closed: (event) => connectionIs(`${closeReason(event)} Trying again.`), // if not, error() tells
        },
      });
      const stop = () => {
        running = false;
        client.dispose();
      };

      client.subscribe(operation, {
        next(event) {
          events.unshift(event);
          events.length = Math.min(events.length, eventsShown);
          show();
        },
        complete: () => end('completed by the server'),
        error(error) {
          if (Array.isArray(error)) {
            events.unshift({ errors: error });
            end('ended by an error');
          } else {
            end(error instanceof Error ? error.message : closeReason(error));
          }
        },
      });

      return {
        unsubscribe() {
          connectionIs('stopped');
          stop();
        },
      };
    },
  };
}

// connectionParams is the payload of connection_init: the headers by their names as typed and in lower case, for header
// names have no case and the keys of a payload do.
function connectionParams(headers) {
  const lower = Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value]);
  return { ...headers, ...Object.fromEntries(lower) };
}

// closeReason of a close event, or of the bare error event of a socket that could not be opened.
function closeReason({ code = 1006, reason = '' }) {
  if (code === 1006) return 'lost, or refused (1006). Is the server there, and does it allow this origin?';
  return `closed: ${code} ${reason}`.trim() + '.';
}

function failure(message, extensions) {
  return { errors: [{ message, ...(extensions && { extensions }) }] };
}
