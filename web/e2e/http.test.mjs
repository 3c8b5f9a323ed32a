// GraphQL over HTTP, by the audits of the package graphql-http, against a real server at BASE_URL. TestGraphQLOverHTTP runs it.
import assert from 'node:assert/strict';
import { test } from 'node:test';

import { serverAudits } from 'graphql-http';

const { BASE_URL: baseURL } = process.env;

const audits = serverAudits({ url: `${baseURL}/graphql`, fetchFn: fetch });

for (const audit of audits) {
  test(`${audit.id} ${audit.name}`, async () => {
    const result = await audit.fn();
    assert.equal(result.status, 'ok', result.reason);
  });
}

test('there are audits of what must and of what should be', () => {
  const of = (word) => audits.filter(({ name }) => name.startsWith(`${word} `)).length;
  assert.ok(of('MUST') >= 10 && of('SHOULD') >= 20, `${of('MUST')} and ${of('SHOULD')}`);
});
