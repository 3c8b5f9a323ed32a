// A sign-in, shared by the tabs of a browser, whichever GraphQL client they use: session.js, socket.js and one of apollo.js
// and urql.js are to be copied into an application.
//
// The server says by its answers where tokens are kept. Where it gives them in the body, they are kept in storage; with
// AUTH_TOKEN_STORAGE=cookie the browser keeps them, no script sees them, and storage only says that somebody is signed in.

const loginMutation = `
  mutation Login($input: LoginInput!) {
    login(input: $input) { accessToken refreshToken expiresAt user { id username name } }
  }
`;
const refreshMutation = `
  mutation Refresh($refreshToken: String) {
    refresh(refreshToken: $refreshToken) { accessToken refreshToken expiresAt user { id username name } }
  }
`;
const logoutMutation = 'mutation Logout { logout }';
const meQuery = 'query Me { me { id username name } }';

// What a refresh may take. The server answers a refresh token again for 30 s after its first use, so that an answer that
// was lost can be asked for once more; after that it takes the token for stolen.
const attempts = 3;
const patience = 8_000; // ms, for each

// createSession returns the sign-in of this browser at an endpoint.
//
// storage may be sessionStorage, which ends with its tab. But a tab that is duplicated takes a copy along, and then two
// tabs have one refresh token and do not know of each other: the server takes that for theft, and ends the session.
//
// credentials is as of fetch: 'include' for an endpoint on another origin that keeps tokens in cookies.
export function createSession({ endpoint = '/graphql', credentials = 'same-origin', storage = localStorage, key = 'godstack.session' } = {}) {
  const listeners = new Set();
  let refreshing;

  // current is who is signed in, as far as this browser knows: user, a date that tells one pair of tokens from the next,
  // when the access token expires if that is known, and the tokens, unless they are in cookies. It is undefined where nobody is.
  function current() {
    return JSON.parse(storage.getItem(key)) ?? undefined;
  }

  function keep(payload) {
    const before = current()?.user.id;
    if (payload) storage.setItem(key, JSON.stringify({ ...payload, date: Date.now() }));
    else storage.removeItem(key);
    if (payload?.user.id !== before) changed();
  }

  function changed() {
    for (const listener of listeners) listener(current()?.user);
  }

  // headers of a request in the name of held, which current returned. Cookies go by themselves.
  function headers(held) {
    return held?.accessToken ? { authorization: `Bearer ${held.accessToken}` } : {};
  }

  // restore returns the user, as the server knows it, or undefined. It is for the start of an application: cookies end by
  // themselves, and may be there without this browser's knowing of them.
  async function restore() {
    let held = current();
    let me;
    try {
      ({ me } = await send(meQuery, {}, headers(held)));
    } catch (error) {
      if (error.status !== 401) throw error;
      await refresh(held);
      held = current();
      ({ me } = await send(meQuery, {}, headers(held)));
    }
    if (current()?.date !== held?.date) return restore(); // somebody has signed in or out meanwhile
    if (me?.id !== held?.user.id) keep(me && { user: me });
    return me ?? undefined;
  }

  // signIn returns the user, or null where the mail address has to be confirmed first. code is the second factor's; where
  // it is missing, the error's extensions.fields has "code".
  async function signIn({ login, password, code }) {
    const payload = await exclusive(async () => {
      const data = await send(loginMutation, { input: { login, password, code } });
      if (data.login.user) keep(data.login);
      return data.login;
    });
    return payload.user;
  }

  // signOut ends the session on the server, for all tabs. Where the server cannot be reached nothing changes.
  async function signOut() {
    await exclusive(async () => {
      // An access token that has expired signs nobody out. Where cookies carry tokens, the refresh token does.
      if (current()?.accessToken) await renew();
      await send(logoutMutation, {}, headers(current()));
      keep(null);
    });
  }

  // refresh makes new tokens because the server refused a request: HTTP 401, or a socket closed with 4403. refused is
  // what current returned when that was sent. It returns whether somebody is signed in after it, and rejects where the
  // server cannot be reached. Requests that are refused together share one refresh, also over several tabs.
  function refresh(refused) {
    refreshing ??= exclusive(async () => {
      if (current()?.date === refused?.date) await renew(); // else another tab was quicker
      return current() !== undefined;
    }).finally(() => {
      refreshing = undefined;
    });
    return refreshing;
  }

  async function renew() {
    const held = current();
    let payload = null;
    try {
      payload = (await patiently(() => send(refreshMutation, { refreshToken: held?.refreshToken }))).refresh;
    } catch (error) {
      if (error.extensions?.code !== 'UNAUTHENTICATED') throw error;
      // With AUTH_TOKEN_STORAGE=both there are cookies as well, of the session that has ended: they go.
      if (held?.refreshToken) await send(logoutMutation);
    }
    if (current()?.date === held?.date) keep(payload); // else somebody has signed in or out meanwhile
  }

  // exclusive does work in one tab at a time. Browsers have locks for secure pages: https, and this machine. Without
  // them two tabs may refresh at once; the server gives both the same tokens.
  function exclusive(work) {
    return navigator.locks ? navigator.locks.request(key, work) : work();
  }

  // send answers the data of an operation, or throws its first error, with message, extensions and HTTP status. What is no
  // answer of GraphQL rejects as an error without extensions. What the server has no time for is sent again when it says.
  async function send(...operation) {
    for (let attempt = 1; ; attempt++) {
      try {
        return await sendOnce(...operation);
      } catch (error) {
        const { code, retryAfter } = error.extensions ?? {}; // s
        if (code !== 'UNAVAILABLE' || !retryAfter || attempt === attempts) throw error;
        await new Promise((resolve) => setTimeout(resolve, 1000 * retryAfter));
      }
    }
  }

  async function sendOnce(query, variables, headers) {
    const response = await fetch(endpoint, {
      method: 'POST',
      credentials,
      headers: { accept: 'application/graphql-response+json', 'content-type': 'application/json', ...headers },
      body: JSON.stringify({ query, variables }),
      signal: AbortSignal.timeout(patience),
    });
    const { data, errors } = await response.json();
    if (errors) throw Object.assign(new Error(errors[0].message), { status: response.status, extensions: errors[0].extensions });
    return data;
  }

  // onChange calls listener with the user, or undefined, when somebody signs in or out, in this tab or in another.
  function onChange(listener) {
    listeners.add(listener);
    return () => listeners.delete(listener);
  }

  addEventListener('storage', (event) => {
    if (event.storageArea !== storage || (event.key !== key && event.key !== null)) return;
    const user = (text) => text && JSON.parse(text).user.id;
    if (event.key === null || user(event.oldValue) !== user(event.newValue)) changed();
  });

  return { current, headers, restore, signIn, signOut, refresh, onChange };
}

// patiently tries again where there was no answer.
async function patiently(ask) {
  for (let attempt = 1; ; attempt++) {
    try {
      return await ask();
    } catch (error) {
      if (error.extensions || attempt === attempts) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, 250 * 2 ** attempt));
  }
}
