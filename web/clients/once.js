// Mutations of records that are sent again where their answer was lost, and yet are carried out once.

import { createPatient } from './patience.js';

// createOnce is fetch for queries and mutations. It gives each mutation of records an idempotency key, and where there was no answer sends
// it again with the same: if it was carried out, the server answers as it did then. fetch may be another one, such as createFetch of
// standby.js.
export function createOnce({ fetch = createPatient(), attempts = 4, pause = 500 } = {}) {
  return async (url, options) => {
    if (!writes(options?.body)) return fetch(url, options);
    const headers = new Headers(options.headers);
    headers.set('idempotency-key', newKey());
    for (let attempt = 1; ; attempt++) {
      try {
        const response = await fetch(url, { ...options, headers });
        return new Response(await response.arrayBuffer(), response); // all of it has come
      } catch (error) {
        if (attempt >= attempts || options.signal?.aborted) throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, pause * 2 ** attempt * Math.random()));
    }
  };
}

// writes reports whether a request is of generated mutations, which are named so. Those of accounts take no key.
function writes(body) {
  if (typeof body !== 'string') return false;
  const { query } = JSON.parse(body);
  return /^\s*mutation\b/m.test(query) && /\b(create|update|delete)[A-Z]\w*\s*\(/.test(query.slice(query.indexOf('{')));
}

// newKey is of 128 random bits. crypto.randomUUID is for secure pages alone.
function newKey() {
  return Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('');
}
