// examples are the tabs of a first visit, on data that the server has: nothing needs to be copied.
import { post } from './fetcher.js';

// defaultHeaders is the text of the headers editor.
export const defaultHeaders = `{
  // Who is signed in, at the top right, asks.
  // Subscriptions send these too, as the
  // payload of connection_init. To ask as
  // somebody else:
  // "Authorization": "Bearer ..."
}
`;

// unknown is the id in the examples where nothing may be seen.
export const unknown = 'thread_...';

// sample is a thread to try things on, as who asks may see it.
export async function sample() {
  const answer = await post({
    query: '{ threads(first: 1) { edges { node { id version owner { id version } } } } }',
  }, {});
  return answer.data?.threads?.edges?.[0]?.node ?? { id: unknown, version: 1 };
}

export function examples({ id, version, owner }) {
  const refs = [{ id }];
  if (owner) refs.push({ id: owner.id, knownVersion: owner.version });
  const time = new Date().toTimeString().slice(0, 8);

  return [
    tab({ subject: `Hello at ${time}` }, `
# Sign in first, at the top right. Run with the
# triangle, or Ctrl and Enter. Variables and
# headers are below.
#
# A new record has version 1, and each
# write raises it.

mutation Create($subject: String!) {
  createThread(input: { subject: $subject }) {
    id
    version
    subject
    createdAt
    owner { id name }
  }
}
`),
    tab({ id, expectedVersion: version, subject: `Renamed at ${time}` }, `
# Run this twice. At first expectedVersion is
# current, and the thread is renamed. Then it is
# gone, as if somebody had been quicker: the
# answer is CONFLICT with the record as it is
# now, and nothing is overwritten.
#
# To write again, set expectedVersion to
# currentVersion.

mutation Conflict(
  $id: ID!
  $expectedVersion: Int!
  $subject: String!
) {
  updateThread(
    id: $id
    expectedVersion: $expectedVersion
    input: { subject: $subject }
  ) {
    id
    version
    subject
  }
}
`),
    tab({ refs }, `
# Many records of many types in one round trip.
# Who holds a record says its knownVersion, and
# gets it only if there is a newer one; else its
# id is in "unchanged".

query RecordMap($refs: [RecordRef!]!) {
  records(refs: $refs) {
    threads { id version subject }
    users { id version name }
    unchanged
    missing
  }
}
`),
    tab({ id }, `
# Run this, and leave it open. Then change the
# thread in a second window, in its tab Conflict,
# with the version shown here.
#
# The newest event comes first.

subscription Subscribe($id: ID!) {
  threadChanged(id: $id) {
    kind
    recordId
    version
    fields
    thread { id version subject }
  }
}
`),
  ];
}

function tab(variables, query) {
  return { query: query.trimStart(), variables: JSON.stringify(variables, null, 2) };
}
