// Who asks: the control in the header, its form to sign in, and the session that the fetcher uses.
import { createElement as h, Fragment, useEffect, useId, useRef, useState } from 'react';
import { Button } from '@graphiql/react';
import { createSession } from '../clients/session.js';

// session is that of the application at this origin, in all tabs. Where the server gives tokens to the page, they stay in
// localStorage until somebody signs out: a script that is not ours could read them there, as it could in sessionStorage,
// and the policy of this page has none run. sessionStorage would forget them with the tab, but a duplicated tab takes a
// copy along, and two that renew the same tokens unknown to each other look like theft. With AUTH_TOKEN_STORAGE=cookie
// there is nothing to read.
export const session = createSession();

// hint is what the server has to say to who wants to sign in; in development, whom the demonstration data has.
const hint = document.querySelector('meta[name="sign-in-hint"]').content;

export function Account({ user: first, onSignIn }) {
  const [user, setUser] = useState(first);
  const [failure, setFailure] = useState('');
  const dialog = useRef(null);
  useEffect(() => session.onChange(setUser), []);

  async function signOut() {
    try {
      await session.signOut();
      setFailure('');
      setUser(undefined); // a cookie may have signed in whom the session did not know of
    } catch (error) {
      setFailure(`Not signed out: ${error.message}`);
    }
  }

  return h(
    'div',
    { className: 'account', role: 'group', 'aria-label': 'Account' },
    h(
      'span',
      { role: 'status' },
      user && h(Fragment, null, 'Signed in as ', h('strong', { title: user.name }, user.username ?? user.name)),
      failure && h('span', { className: 'failure' }, failure),
    ),
    user
      ? h(Button, { type: 'button', onClick: signOut }, 'Sign out')
      : h(Button, { type: 'button', onClick: () => dialog.current.showModal() }, 'Sign in'),
    h(SignIn, {
      dialog,
      onSignIn(user) {
        setUser(user);
        onSignIn(user);
      },
    }),
  );
}

// SignIn is a dialog with a form. The code of a second factor is asked for when the server wants one.
function SignIn({ dialog, onSignIn }) {
  const [failure, setFailure] = useState('');
  const [wantsCode, setWantsCode] = useState(false);
  const [busy, setBusy] = useState(false);
  const title = useId();
  const code = useRef(null);
  useEffect(() => {
    if (wantsCode) code.current.focus();
  }, [wantsCode]);

  async function submit(event) {
    event.preventDefault();
    const form = event.currentTarget;
    setBusy(true);
    setFailure('');
    try {
      const user = await session.signIn(Object.fromEntries(new FormData(form)));
      if (user) {
        dialog.current.close();
        onSignIn(user);
      } else {
        setFailure('Confirm your mail address first: the link is in a mail to you.');
      }
    } catch (error) {
      setWantsCode(error.extensions?.fields?.includes('code') ?? false);
      setFailure(error.message);
    } finally {
      setBusy(false);
    }
  }

  function forget(event) {
    event.currentTarget.querySelector('form').reset();
    setFailure('');
    setWantsCode(false);
  }

  return h(
    'dialog',
    { ref: dialog, className: 'sign-in', 'aria-labelledby': title, onClose: forget },
    h(
      'form',
      { onSubmit: submit },
      h('h2', { id: title }, 'Sign in'),
      h(Field, { label: 'Mail address or user name', name: 'login', autoComplete: 'username', autoCapitalize: 'none', spellCheck: false, autoFocus: true }),
      h(Field, { label: 'Password', name: 'password', type: 'password', autoComplete: 'current-password' }),
      wantsCode && h(Field, { label: 'Code of your second factor', name: 'code', autoComplete: 'one-time-code', ref: code }),
      h('p', { role: 'alert', className: 'failure' }, failure),
      hint && h('p', { className: 'hint' }, hint),
      h(
        'div',
        { className: 'buttons' },
        h(Button, { type: 'button', onClick: () => dialog.current.close() }, 'Cancel'),
        h(Button, { type: 'submit', disabled: busy }, 'Sign in'),
      ),
    ),
  );
}

function Field({ label, ...input }) {
  const id = useId();
  return h(Fragment, null, h('label', { htmlFor: id }, label), h('input', { id, required: true, ...input }));
}
