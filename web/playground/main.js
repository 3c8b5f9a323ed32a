import './nonce.js';

import { createElement as h, Fragment } from 'react';
import { createRoot } from 'react-dom/client';
import { GraphiQL, HISTORY_PLUGIN } from 'graphiql';
import { ReloadIcon, ToolbarButton } from '@graphiql/react';
import { explorerPlugin } from '@graphiql/plugin-explorer';

import '@graphiql/react/font/roboto.css';
import '@graphiql/react/font/fira-code.css';
import '@graphiql/react/style.css';
import '@graphiql/plugin-doc-explorer/style.css';
import '@graphiql/plugin-history/style.css';
import '@graphiql/plugin-explorer/style.css';
import 'graphiql/graphiql.css';
import './style.css';

import { Account, session } from './account.js';
import { defaultHeaders, examples, sample, unknown } from './examples.js';
import { fetcher } from './fetcher.js';

const user = await session.restore().catch(() => undefined); // where the server does not answer, the first operation tells
const thread = await sample();
const tabs = examples(thread);
// GraphiQL takes the first tab's variables from a property of their own, and remembers all tabs after the first visit.
const firstVisit = localStorage.getItem('graphiql:tabState') === null;

createRoot(document.getElementById('playground')).render(
  h(
    GraphiQL,
    {
      fetcher,
      defaultTabs: tabs,
      initialVariables: firstVisit ? tabs[0].variables : undefined,
      defaultHeaders,
      defaultEditorToolsVisibility: 'variables',
      plugins: [HISTORY_PLUGIN, explorerPlugin()],
    },
    h(
      GraphiQL.Logo,
      null,
      h(Account, { user, onSignIn }),
      h('a', { className: 'graphiql-logo-link', href: '/' }, 'Godstack'),
    ),
    h(GraphiQL.Toolbar, null, ({ prettify, merge, copy }) =>
      h(Fragment, null, prettify, merge, copy, h(ResetButton)),
    ),
  ),
);

// onSignIn fills the examples of a first visit, now that something may be seen.
function onSignIn() {
  const tabs = localStorage.getItem('graphiql:tabState');
  if (thread.id === unknown && (firstVisit || tabs?.includes(unknown))) reset();
}

function ResetButton() {
  return h(
    ToolbarButton,
    { label: 'Open the example tabs again, on current data', onClick: reset },
    h(ReloadIcon, { className: 'graphiql-toolbar-icon', 'aria-hidden': true }),
  );
}

function reset() {
  // GraphiQL writes its memory a moment after each change: forget it last.
  addEventListener('pagehide', () => {
    for (const key of ['tabState', 'query', 'variables']) localStorage.removeItem(`graphiql:${key}`);
  });
  location.reload();
}
