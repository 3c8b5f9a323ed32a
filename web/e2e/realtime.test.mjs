// Subscriptions with the npm packages that applications use, set up as web/clients has them, against a real server at BASE_URL whose
// access tokens live for a few seconds, and another node of it at LEAVING_URL, which shuts down when LEAVE_URL is asked. TOKEN_STORAGE is
// what AUTH_TOKEN_STORAGE is there.
import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';
import { setTimeout } from 'node:timers/promises';

import { codeOf, compile, person } from './clients/node.mjs';
import { messages, read, records, rename, thread } from './clients/operations.js';
import { follow } from '../clients/resume.js';

const { BASE_URL: baseURL, LEAVING_URL: leavingURL, LEAVE_URL: leaveURL, TOKEN_STORAGE: storage } = process.env;
const password = 'correct-horse-battery';

let compiled;
before(async () => {
  compiled = await compile(baseURL);
});

// Each test has somebody of the demonstration data to itself.
const people = ['alan', 'barbara', 'claude', 'dennis', 'donald', 'edsger', 'frances', 'grace', 'guido', 'hedy', 'jean', 'john',
  'katherine', 'ken', 'leslie', 'linus', 'margaret', 'radia', 'tim'];

// someone is next, and signed in.
async function someone(t, client, options) {
  const login = people.shift();
  people.push(login);
  const she = await person(t, { client, target: baseURL, compiled, ...options });
  const user = await she.session.signIn({ login, password });
  return { ...she, login, id: user.id };
}

// writer writes in somebody's name, by a line that is not cut.
async function writer(t, login) {
  const it = await person(t, { client: 'graphql-ws', target: baseURL });
  await it.session.signIn({ login, password });
  const ask = async (text, variables) => {
    const { data, refusal } = await it.ask(text, variables);
    assert.equal(refusal, undefined);
    return Object.values(data)[0];
  };
  const update = `mutation ($id: ID!, $version: Int!, $input: UpdateThreadInput!) {
    updateThread(id: $id, expectedVersion: $version, input: $input) { version }
  }`;
  const createThread = 'mutation ($input: CreateThreadInput!) { createThread(input: $input) { id version } }';
  const createMessage = 'mutation ($input: CreateMessageInput!) { createMessage(input: $input) { id version } }';
  return {
    ask,
    create: (subject, memberIDs = []) => ask(createThread, { input: { subject, memberIDs } }),
    update: (id, version, input) => ask(update, { id, version, input }),
    say: (threadID, body) => ask(createMessage, { input: { threadID, body } }),
  };
}

// until waits for a condition, of which what says something when it does not come.
async function until(condition, what) {
  const end = Date.now() + 30_000;
  while (!(await condition())) {
    if (Date.now() > end) throw new Error(`${condition} does not come true: ${JSON.stringify(what?.())}`);
    await setTimeout(20);
  }
}

const last = (stream) => stream.changes.at(-1);
const reached = (stream) => Math.max(0, ...stream.changes.map(({ version }) => version)); // null in READY
const range = (from, to) => Array.from({ length: to - from + 1 }, (_, i) => from + i);

// everyVersion holds of the stream of a thread that was watched from its first version on. READY comes after each resumption.
function everyVersion(stream, version) {
  const changes = stream.changes.filter(({ kind }) => kind !== 'READY');
  assert.deepEqual(changes.map(({ version }) => version), range(1, version));
  assert.deepEqual(changes.map(({ kind }) => kind), ['SNAPSHOT', ...range(2, version).map(() => 'UPDATED')]);
  assert.equal(stream.error, undefined);
}

// loses nothing: what is written while a connection is lost, comes.
async function losesNothing(t, she) {
  const write = await writer(t, she.login);
  const { id } = await write.create('1');
  const stream = she.watch(thread, { id });
  const reaches = (version) => until(() => reached(stream) >= version, () => [stream, she.seen]);
  let version = 1;
  const renameTo = async (to) => {
    while (version < to) version = (await write.update(id, version, { subject: String(version + 1) })).version;
  };
  await reaches(1);
  await renameTo(3);
  await reaches(3);
  for (const to of [6, 9]) {
    she.line.down();
    await renameTo(to);
    she.line.up();
    await reaches(to);
  }
  const writing = renameTo(20);
  for (const at of [11, 13, 15]) {
    await reaches(at);
    she.line.cut();
  }
  await writing;
  await reaches(20);
  everyVersion(stream, 20);
  if (she.cached) assert.deepEqual(pick(she.cached(id)), { id, version: 20, subject: '20' });
  await write.ask('mutation ($id: ID!) { deleteThread(id: $id, expectedVersion: 20) { version } }', { id });
  await until(() => stream.complete, () => stream);
  assert.equal(last(stream).kind, 'DELETED');
}

const pick = ({ id, version, subject }) => ({ id, version, subject });

const clients = storage === 'cookie' ? ['apollo'] : ['graphql-ws', 'apollo', 'urql', 'relay'];

describe(`tokens in ${storage}`, { concurrency: 8 }, () => { // they wait, mostly
  for (const client of clients) {
    test(`${client} goes on where it was when a connection is lost`, async (t) => losesNothing(t, await someone(t, client)));

    test(`${client} renews the token of a socket that stays open`, async (t) => {
      const she = await someone(t, client);
      const write = await writer(t, she.login);
      const { id } = await write.create('1');
      const stream = she.watch(thread, { id });
      await until(() => stream.changes.length === 1);
      let version = 1;
      const first = she.session.current().date;
      const dates = new Set([first]);
      await until(async () => { // tokens have expired twice
        ({ version } = await write.update(id, version, { subject: String(version + 1) }));
        await until(() => reached(stream) === version, () => [stream, she.seen]);
        dates.add(she.session.current().date);
        return dates.size > 3;
      }, () => she.seen);
      everyVersion(stream, version);
      assert.deepEqual([she.seen.opened, she.seen.closed], [1, []]);
      if (storage === 'header') assert.ok(she.seen.renewals >= 3, `${she.seen.renewals} renewals`);
    });

    if (storage === 'cookie') continue;

    test(`${client} opens a socket again whose token has expired`, async (t) => {
      const she = await someone(t, client, { ping: false });
      const write = await writer(t, she.login);
      const { id } = await write.create('1');
      const stream = she.watch(thread, { id });
      await until(() => stream.changes.length === 1);
      let version = 1;
      await until(async () => {
        ({ version } = await write.update(id, version, { subject: String(version + 1) }));
        return she.seen.opened === 3;
      }, () => she.seen);
      await until(() => reached(stream) === version, () => [stream, she.seen]);
      everyVersion(stream, version);
      assert.deepEqual(she.seen.closed, [4403, 4403]);
    });

    test(`${client} follows a list`, async (t) => {
      const she = await someone(t, client);
      const [owner] = people;
      const write = await writer(t, owner);
      const { id: threadID } = await write.create('list', [she.id]);
      const ids = [];
      for (const body of ['a', 'b']) ids.push((await write.say(threadID, body)).id);

      let held = new Map();
      const { forget } = she;
      const stream = she.watch(messages, { where: { threadID } }, (change) => {
        held = follow(held, change, forget);
      });
      const bodies = () => ids.filter((id) => held.has(id)).map((id) => held.get(id).body);
      const holds = (expected) =>
        until(() => bodies().join() === expected.join() && last(stream)?.kind !== 'SNAPSHOT', () => [stream, bodies()]);
      await holds(['a', 'b']);
      assert.deepEqual(stream.changes.map(({ kind }) => kind), ['SNAPSHOT', 'SNAPSHOT', 'READY']);

      ids.push((await write.say(threadID, 'c')).id);
      await holds(['a', 'b', 'c']);
      she.line.down();
      const [a, b] = ids;
      await write.ask('mutation ($a: ID!) { updateMessage(id: $a, expectedVersion: 1, input: { body: "A" }) { version } }', { a });
      await write.ask('mutation ($b: ID!) { deleteMessage(id: $b, expectedVersion: 1) { version } }', { b });
      ids.push((await write.say(threadID, 'd')).id);
      she.line.up();
      await holds(['A', 'c', 'd']);
      const after = stream.changes.slice(3).map(({ kind }) => kind);
      assert.deepEqual(after.filter((kind) => kind !== 'READY'), ['CREATED', 'UPDATED', 'DELETED', 'CREATED']);

      // The right to read the list goes and comes.
      const { version } = await write.update(threadID, 1, { removeMemberIDs: [she.id] });
      await until(() => held.size === 0, () => stream);
      await write.update(threadID, version, { addMemberIDs: [she.id] });
      await holds(['A', 'c', 'd']);
      assert.ok(stream.changes.some(({ kind }) => kind === 'RESYNC'));
      assert.equal(stream.error, undefined);

      // A cursor from which nobody can go on.
      const again = she.watch(messages, { where: { threadID }, since: stream.changes[0].cursor });
      await until(() => last(again)?.kind === 'READY', () => again);
      assert.deepEqual(again.changes.map(({ kind }) => kind), ['RESYNC', 'SNAPSHOT', 'SNAPSHOT', 'SNAPSHOT', 'READY']);
    });

    test(`${client} learns of a conflict, and writes again`, async (t) => {
      const she = await someone(t, client);
      const write = await writer(t, she.login);
      const { id } = await write.create('1');
      await write.update(id, 1, { subject: '2' });

      const { refusal } = await she.ask(rename, { id, version: 1, input: { subject: 'mine' } });
      assert.equal(refusal.code, 'CONFLICT');
      assert.deepEqual([refusal.currentVersion, refusal.current.subject, refusal.fields], [2, '2', ['subject']]);
      const { data } = await she.ask(rename, { id, version: refusal.currentVersion, input: { subject: 'mine' } });
      assert.deepEqual(pick(data.updateThread), { id, version: 3, subject: 'mine' });

      // Who is a member is none of the subject's business.
      await write.update(id, 3, { addMemberIDs: [she.id] });
      const merged = await she.ask(rename, { id, version: 3, input: { subject: 'merged' }, onConflict: 'MERGE' });
      assert.equal(merged.refusal, undefined);
      assert.deepEqual(pick(merged.data.updateThread), { id, version: 5, subject: 'merged' });
      if (client !== 'relay') { // which keeps extensions to itself
        assert.deepEqual(merged.extensions.merged, [{ path: ['updateThread'], theirs: ['members'], yours: ['subject'] }]);
      }
      const late = await she.ask(rename, { id, version: 4, input: { subject: 'late' }, onConflict: 'MERGE' });
      assert.equal(late.refusal.code, 'CONFLICT');
      assert.equal(late.refusal.current.subject, 'merged');
      if (she.cached) assert.deepEqual(pick(she.cached(id)), { id, version: 5, subject: 'merged' });
    });

    test(`${client} has healthy subscriptions beside others`, async (t) => {
      const she = await someone(t, client);
      const write = await writer(t, she.login);
      const { id } = await write.create('1');
      const healthy = [she.watch(thread, { id }), she.watch(records, { refs: [{ id }] })];
      await until(() => healthy.every((stream) => last(stream)?.kind), () => healthy);

      const missing = she.watch(thread, { id: `${id.slice(0, -1)}${id.endsWith('0') ? '1' : '0'}` });
      const invalid = she.watch(messages, { where: 'everything' });
      await until(() => missing.error && invalid.error, () => [missing, invalid]);
      assert.equal(codeOf(missing.error), 'NOT_FOUND');
      assert.notEqual(codeOf(invalid.error), 'NOT_FOUND');
      if (client !== 'relay') { // whose compiler refuses it
        const unknown = she.watch('subscription ($since: Cursor) { nothingChanged(since: $since) { kind } }', {});
        await until(() => unknown.error, () => unknown);
        assert.equal(codeOf(unknown.error), 'GRAPHQL_VALIDATION_FAILED');
      }

      await write.update(id, 1, { subject: '2' });
      await until(() => healthy.every((stream) => reached(stream) === 2), () => healthy);
      assert.deepEqual([she.seen.opened, she.seen.closed], [1, []]);
      for (const { error, complete } of healthy) assert.deepEqual([error, complete], [undefined, false]);
      healthy[0].stop();
      await write.update(id, 2, { subject: '3' });
      await until(() => reached(healthy[1]) === 3, () => healthy);
      assert.equal(reached(healthy[0]), 2);
    });
  }

  if (storage === 'cookie') return;

  for (const client of ['apollo', 'relay']) {
    test(`${client} keeps what is newer than an answer`, async (t) => {
      const she = await someone(t, client);
      const write = await writer(t, she.login);
      const { id } = await write.create('1');
      const stream = she.watch(thread, { id });
      await until(() => stream.changes.length === 1);
      const { waits, release } = she.lag();
      const answer = she.ask(read, { id });
      await waits;
      await write.update(id, 1, { subject: '2' });
      await until(() => reached(stream) === 2, () => stream);
      release();
      assert.deepEqual(pick((await answer).data.thread), { id, version: 2, subject: '2' });
      assert.deepEqual(pick(she.cached(id)), { id, version: 2, subject: '2' });

      // But after RESYNC it is worth nothing, since versions may have gone back.
      she.forget([{ __typename: 'Thread', id, version: 2 }]);
      assert.ok(!she.cached(id));
      await she.ask(read, { id });
      assert.deepEqual(pick(she.cached(id)), { id, version: 2, subject: '2' });
    });
  }

  test('graphql-ws goes on at another node', async (t) => {
    const she = await someone(t, 'graphql-ws', { target: leavingURL });
    const write = await writer(t, she.login);
    const { id } = await write.create('1');
    const stream = she.watch(thread, { id });
    await until(() => stream.changes.length === 1);
    she.line.up(baseURL); // for who comes
    await fetch(leaveURL);
    await write.update(id, 1, { subject: '2' });
    await until(() => reached(stream) === 2, () => [stream, she.seen]);
    everyVersion(stream, 2);
    assert.deepEqual([she.seen.opened, she.seen.closed], [2, [1012]]);
  });

  for (const singleConnection of [false, true]) {
    test(`graphql-sse goes on where it was when ${singleConnection ? 'the connection of all' : 'a connection'} is lost`, async (t) => {
      await losesNothing(t, await someone(t, 'graphql-sse', { singleConnection }));
    });

    test(`graphql-sse opens ${singleConnection ? 'the stream of all' : 'a stream'} again whose token has expired`, async (t) => {
      const she = await someone(t, 'graphql-sse', { singleConnection });
      const write = await writer(t, she.login);
      const { id } = await write.create('1');
      const stream = she.watch(thread, { id });
      await until(() => stream.changes.length === 1);
      let version = 1;
      const dates = new Set();
      await until(async () => {
        ({ version } = await write.update(id, version, { subject: String(version + 1) }));
        dates.add(she.session.current().date);
        return dates.size > 2;
      });
      await until(() => reached(stream) === version, () => stream);
      everyVersion(stream, version);
    });
  }
});

test('a subscription is asked for again when the server says when', async () => {
  const { resuming } = await import('../clients/resume.js');
  const asked = [];
  const socket = resuming({
    subscribe(payload, sink) {
      asked.push({ ...payload.variables });
      if (asked.length === 1) {
        sink.next({ data: { threadChanged: { cursor: 'first' } } });
        sink.error([{ message: 'the database is away', extensions: { code: 'UNAVAILABLE', retryAfter: 0 } }]);
      }
      return () => {};
    },
  });
  const taken = [];
  socket.subscribe({ query: thread, variables: { id: 'x' } }, { next: (result) => taken.push(result), error: assert.fail });
  await until(() => asked.length === 2);
  assert.deepEqual(asked, [{ id: 'x' }, { id: 'x', since: 'first' }]);
  assert.equal(taken.length, 1);
});
