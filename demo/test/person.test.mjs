// The scripted person, against the real viewer with a fake room behind it.
// Needs viewer/dist: run "npm run build" in viewer/ first.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { fakeSession, startFakeServer } from '../../viewer/dev/fake-server.mjs';
import { startFakeRoom } from '../../viewer/dev/fake-room.mjs';
import { demoFolder, start, startBrowser, temporaryFolder } from './support.mjs';

async function startRoom(t) {
  let room;
  const server = await startFakeServer({
    session: fakeSession({ state: 'preparing' }), answer: (sdp) => room.answer(sdp),
  });
  t.after(() => server.close());
  const browser = await startBrowser(t);
  room = await startFakeRoom(await browser.newContext(), server.origin, {
    onSignedIn: () => server.set({
      state: 'ended', reason: { code: 'completed', message: 'signed in' }, teardown: 'torn_down', leftovers: [],
    }),
  });
  return { server, room };
}

function startPerson(t, server, more = []) {
  const folder = temporaryFolder(t);
  const person = start(t, process.execPath, [
    join(demoFolder, 'person/person.mjs'), '--viewer-url', server.link, '--screenshots', folder,
    '--timeout', '60', ...more,
  ]);
  const told = () => person.lines.map((line) => JSON.parse(line));
  return { ...person, folder, told };
}

const named = (name) => (line) => (JSON.parse(line).event === name ? JSON.parse(line) : undefined);

test('the person signs in through the picture, after a wrong password', async (t) => {
  const { server, room } = await startRoom(t);
  const person = startPerson(t, server, ['--wrong-password-first']);
  const first = await person.until(named('first_frame'));
  await person.until(named('continued'));
  assert.ok(!person.told().some(({ event }) => event === 'ready'), 'a bare desktop is not the sign-in page');
  server.set({ state: 'awaiting_user', signInUrlHost: 'accounts.anteroom.test' });
  await room.show('sign-in');
  const { code, errors } = await person.exit;
  assert.equal(code, 0, `${errors}\n${person.lines.join('\n')}`);
  const events = person.told().map(({ event }) => event).filter((event) => event !== 'continued');
  assert.deepEqual(events, ['first_frame', 'ready', 'way', 'refused', 'typed', 'left_page', 'ended']);
  assert.ok(person.told().find(({ event }) => event === 'ready').at_ms >= first.at_ms);
  assert.equal(person.told().at(-1).ok, true);
  assert.ok(existsSync(join(person.folder, 'person-ended.png')));
});

test('a session that ends before the sign-in is a failure with its reason', async (t) => {
  const { server } = await startRoom(t);
  const person = startPerson(t, server);
  await person.until(named('continued'));
  server.set({
    state: 'ended', reason: { code: 'vm_exited', message: 'the virtual machine ended unasked' }, teardown: 'torn_down',
  });
  assert.equal((await person.exit).code, 1);
  const failed = person.told().at(-1);
  assert.equal(failed.event, 'failed');
  assert.match(failed.why, /The virtual machine ended unasked/);
  assert.ok(existsSync(failed.screenshot));
});
