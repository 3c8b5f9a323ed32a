// Mutations of records that are sent again where their answer was lost, and yet are carried out once.

import { createPatient, pause as rest } from './patience.js';

// createOnce is fetch for queries and mutations. It gives each mutation of records an idempotency key, and sends it again with the same
// where there was no answer, or one that is not of the server's, or UNAVAILABLE: if it was carried out, the server answers as it did then.
// What has a key already, in its headers or in extensions.idempotencyKey, keeps it, and is sent again as well.
//
// fetch may be another one, such as createFetch of standby.js; without one, what is no mutation of records is sent by createPatient. patience (ms) is for an attempt, and has to be longer than the server's own,
// which is 30 s; pause (ms) is before the second, and is twice as long each time. Where the server says to try again after more than
// longest (ms), its answer is the last. writes says of a request whether it is a mutation of records, signedIn whether anybody is, since
// nobody's takes no key.
export function createOnce({
  fetch,
  attempts = 4,
  patience = 40_000,
  pause = 500,
  longest = 60_000,
  writes = writesRecords,
  signedIn = () => true,
} = {}) {
  const others = fetch ?? createPatient();
  const send = fetch ?? ((...request) => globalThis.fetch(...request));

  // The keys of mutations that may have been carried out, and were refused when they were sent again, as when a token has expired
  // meanwhile. Who renews it sends the same once more, at once.
  let refused = [];

  function keyOf(body) {
    refused = refused.filter(({ until }) => until > Date.now());
    const i = refused.findIndex((before) => before.body === body);
    return i < 0 ? newKey() : refused.splice(i, 1)[0].key;
  }

  return async (url, options) => {
    const headers = new Headers(options?.headers);
    const body = parsed(options?.body);
    let key;
    if (!headers.has('idempotency-key') && !body?.extensions?.idempotencyKey) {
      if (!body || !writes(body) || !signedIn()) return others(url, options);
      key = keyOf(options.body);
      headers.set('idempotency-key', key);
    }
    const left = options.signal;
    for (let attempt = 1; ; attempt++) {
      const backoff = pause * 2 ** (attempt - 1) * (0.5 + Math.random());
      const limit = new AbortController();
      const timer = setTimeout(() => limit.abort(new DOMException('there was no answer in time', 'TimeoutError')), patience);
      let wait = backoff;
      try {
        const signal = left ? AbortSignal.any([left, limit.signal]) : limit.signal;
        const response = await send(url, { ...options, headers, signal });
        const text = await response.text(); // all of it has come
        const told = retryAfter(response.status, text);
        wait = (told ?? 0) + backoff; // so that not all come at once who were told the same
        if (key && response.status === 401 && attempt > 1) refused.push({ key, body: options.body, until: Date.now() + 60_000 });
        const empty = [204, 205, 304].includes(response.status); // which may have no body
        if (told === undefined || told > longest || attempt >= attempts) return new Response(empty ? null : text, response);
      } catch (error) {
        if (attempt >= attempts || left?.aborted) throw error;
      } finally {
        clearTimeout(timer);
      }
      await rest(wait, left);
    }
  };
}

// retryAfter is when to send a mutation again (ms), undefined where it has its answer. A proxy whose server is away has an answer of its
// own, which tells nothing of the mutation.
function retryAfter(status, text) {
  const answer = parsed(text);
  if (!answer?.errors && !answer?.data) return status >= 502 && status <= 504 ? 0 : undefined;
  const { code, retryAfter = 0 } = answer.errors?.[0]?.extensions ?? {};
  return code === 'UNAVAILABLE' && !answer.data ? retryAfter * 1000 : undefined;
}

// writesRecords reports whether a request is of generated mutations, which are named so. Those of accounts take no key. Of what has no
// document, but the id of one, it does not know.
function writesRecords({ query }) {
  if (typeof query !== 'string') return false;
  return /^\s*mutation\b/m.test(query) && /\b(create|update|delete|restore)[A-Z]\w*\s*\(/.test(query.slice(query.indexOf('{')));
}

// parsed is what a text of JSON says, undefined where it is none.
function parsed(text) {
  try {
    return typeof text === 'string' ? JSON.parse(text) : undefined;
  } catch {
    return undefined;
  }
}

// newKey is of 128 random bits. crypto.randomUUID is for secure pages alone.
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
