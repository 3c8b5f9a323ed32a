// Requests that the server had no time for are sent again when it says. Nothing was done of them, so that this is safe for mutations too.

const longest = 60; // s

// createPatient is fetch for queries and mutations: an answer of status 503 with Retry-After is waited out, a few times.
export function createPatient({ fetch = (...request) => globalThis.fetch(...request), attempts = 4 } = {}) {
  return async (url, options) => {
    for (let attempt = 1; ; attempt++) {
      const response = await fetch(url, options);
      const after = Number(response.headers.get('retry-after')); // s
      if (response.status !== 503 || !(after > 0 && after <= longest) || attempt >= attempts) return response;
      await response.body?.cancel();
      // The server tells each another time, in whole seconds: what chance adds keeps those apart whom it told the same.
      await pause(1000 * (after + Math.random()), options?.signal);
    }
  };
}

// pause waits for some milliseconds, or until a signal ends it.
export function pause(time, signal) {
  return new Promise((resolve, reject) => {
    const end = () => {
      clearTimeout(timer);
      reject(signal.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener('abort', end);
      resolve();
    }, time);
    if (signal?.aborted) end();
    else signal?.addEventListener('abort', end, { once: true });
  });
}
