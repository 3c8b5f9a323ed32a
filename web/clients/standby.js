// Reads from a standby of the server's database, which is a little behind, and yet none that is older than what was read or written before.

import { createPatient } from './patience.js';

// createFetch is fetch for queries and mutations. It says what has been seen, in all tabs; without it the server asks the primary.
export function createFetch({ fetch = createPatient(), storage = globalThis.localStorage, key = 'godstack.seen' } = {}) {
  const later = (a, b) => (a > b ? a : b); // these texts compare as what they stand for does
  const stored = () => storage?.getItem(key) ?? '0';
  let own = '0';
  return async (url, options) => {
    const sent = later(own, stored());
    const headers = new Headers(options.headers);
    headers.set('read-after', sent);
    let newer;
    try {
      const response = await fetch(url, { ...options, headers });
      newer = response.headers.get('read-after');
      return response;
    } finally {
      // Who is not told may have written what no standby has. None has this: the primary answers next, and tells.
      newer ??= `ffffffff${Date.now().toString(16).padStart(16, '0')}`;
      // An answer takes the place of what its request said. Answers come in any order: else the later counts.
      const settle = (held) => (held === sent ? newer : later(held, newer));
      own = settle(own);
      storage?.setItem(key, settle(stored()));
    }
  };
}
