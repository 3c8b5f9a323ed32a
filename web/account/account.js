// The pages that links in mails lead to. Nothing happens before somebody presses a button: programs that look through
// mail open links, too.

const documents = {
  'verify-email': 'mutation ($token: String!) { verifyEmail(token: $token) { accessToken user { name } } }',
  'reset-password': 'mutation ($token: String!, $password: String!) { resetPassword(token: $token, password: $password) }',
  'revert-email': 'mutation ($token: String!) { revertEmail(token: $token) }',
};
const askForVerification = 'mutation ($email: String) { requestEmailVerification(email: $email) }';
const askForReset = 'mutation ($email: String!) { requestPasswordReset(email: $email) }';

const patience = 20_000; // ms, for an answer

const { page } = document.body.dataset;
const token = takeToken();
const ask = document.querySelector('#ask form');
const over = document.querySelector('#over form');

// takeToken takes the token out of the address, so that neither what is shown nor what the browser remembers has it. A
// reload of the page still finds it.
function takeToken() {
  const given = new URLSearchParams(location.search).get('token') ?? history.state?.token ?? '';
  history.replaceState(given && { token: given }, '', location.pathname);
  return given;
}

// send answers the data of an operation, or throws its first error, with extensions. Where there is no answer of GraphQL,
// the error has none.
async function send(query, variables = {}, headers = {}) {
  const response = await fetch('graphql', {
    method: 'POST',
    headers: { accept: 'application/graphql-response+json', 'content-type': 'application/json', ...headers },
    body: JSON.stringify({ query, variables }),
    signal: AbortSignal.timeout(patience),
  });
  const { data, errors } = await response.json();
  if (errors) throw Object.assign(new Error(errors[0].message), { extensions: errors[0].extensions ?? {} });
  return data;
}

// show shows one section instead of the others, and takes readers to its heading.
function show(id) {
  for (const section of document.querySelectorAll('section')) section.hidden = section.id !== id;
  const heading = document.querySelector(`#${id} h1`);
  document.title = `${heading.textContent} · ${document.title.split(' · ').at(-1)}`;
  heading.focus();
}

// complain says what is wrong with a field, and has it corrected.
function complain(field, text) {
  const error = document.getElementById(`${field.id}-error`);
  error.textContent = text;
  error.hidden = false;
  field.setAttribute('aria-invalid', 'true');
  field.focus();
}

function forgetComplaints(form) {
  for (const field of form.querySelectorAll('[aria-invalid]')) field.removeAttribute('aria-invalid');
  for (const error of form.querySelectorAll('.failure[id]')) {
    error.hidden = true;
    error.textContent = '';
  }
  form.querySelector('[role=alert]').textContent = '';
}

// explain says in plain words why something did not happen.
function explain(error) {
  const { code, retryAfter } = error.extensions ?? {};
  const later = retryAfter ? ` in ${duration(retryAfter)}` : ' in a while';
  switch (code) {
    case undefined:
      return 'There was no answer. Look whether you are online, and try again.';
    case 'RATE_LIMITED':
      return `There were too many tries from your network. Try again${later}.`;
    case 'UNAVAILABLE':
    case 'INTERNAL':
      return `Something went wrong on our side. Try again${later}.`;
  }
  return sentence(error.message);
}

function duration(seconds) {
  if (seconds < 90) return `${Math.ceil(seconds)} seconds`;
  if (seconds < 90 * 60) return `${Math.ceil(seconds / 60)} minutes`;
  return `${Math.ceil(seconds / 3600)} hours`;
}

function sentence(text) {
  return `${text.charAt(0).toUpperCase()}${text.slice(1)}.`;
}

// onSubmit has act run when the form is sent, once at a time.
function onSubmit(form, act) {
  const progress = document.getElementById('progress');
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    if (form.ariaBusy === 'true') return;
    forgetComplaints(form);
    form.ariaBusy = 'true';
    progress.textContent = 'One moment…';
    try {
      await act();
    } catch (error) {
      form.querySelector('[role=alert]').textContent = explain(error);
    } finally {
      form.ariaBusy = 'false';
      progress.textContent = '';
    }
  });
}

onSubmit(ask, async () => {
  const { password, again } = ask.elements;
  if (password && password.value === '') return complain(password, 'Choose a password.');
  if (password && password.value !== again.value) return complain(again, 'This is not the same password.');
  try {
    const data = await send(documents[page], { token, password: password?.value });
    if (page === 'verify-email') document.getElementById('outcome').textContent = await outcome(data.verifyEmail);
  } catch (error) {
    const fields = error.extensions?.fields ?? [];
    if (fields.includes('token')) return end();
    if (password && fields.includes('password')) return complain(password, sentence(error.message));
    throw error;
  }
  history.replaceState(null, '');
  ask.reset();
  show('done');
});

// outcome says whether somebody is signed in now. Tokens that the answer has are not for this page: where cookies carry
// them as well, all is well, and otherwise the session that began ends, since nobody could use it.
async function outcome({ accessToken, user }) {
  if (!user) return 'If the application asks you to, sign in.';
  const signedIn = `You are signed in as ${user.name}.`;
  if (!accessToken) return signedIn;
  try {
    if ((await send('{ me { id } }')).me) return signedIn;
    await send('mutation { logout }', {}, { authorization: `Bearer ${accessToken}` });
  } catch {
    // The address is confirmed all the same.
  }
  return 'Now sign in in the application.';
}

function end() {
  history.replaceState(null, '');
  show('over');
}

onSubmit(over, async () => {
  const { email } = over.elements;
  email.value = email.value.trim();
  if (!email.value || !email.checkValidity()) return complain(email, 'Write a mail address, such as name@example.com.');
  await send(page === 'verify-email' ? askForVerification : askForReset, { email: email.value });
  show('sent');
});

document.getElementById('reveal')?.addEventListener('change', ({ target }) => {
  for (const name of ['password', 'again']) ask.elements[name].type = target.checked ? 'text' : 'password';
});

document.getElementById('unscripted').remove();
if (!token) {
  // Who comes without a link has none that could be over.
  for (const element of document.querySelectorAll('[data-unasked]')) element.textContent = element.dataset.unasked;
  end();
}
