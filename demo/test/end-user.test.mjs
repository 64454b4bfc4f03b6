// The scripted end user, against the real viewer with a fake guest behind it.
// Needs viewer/dist: run "npm run build" in viewer/ first.

import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { fakeSession, startFakeServer } from '../../viewer/dev/fake-server.mjs';
import { startFakeGuest } from '../../viewer/dev/fake-guest.mjs';
import { demoFolder, start, startBrowser, temporaryFolder } from './support.mjs';

async function startGuest(t) {
  let guest;
  const server = await startFakeServer({
    session: fakeSession({ state: 'preparing' }), answer: (sdp) => guest.answer(sdp),
  });
  t.after(() => server.close());
  const browser = await startBrowser(t);
  guest = await startFakeGuest(await browser.newContext(), server.origin, {
    onSignedIn: () => server.set({
      state: 'ended', reason: { code: 'completed', message: 'signed in' }, teardown: 'torn_down', leftovers: [],
    }),
  });
  return { server, guest };
}

function startEndUser(t, server, more = []) {
  const folder = temporaryFolder(t);
  const endUser = start(t, process.execPath, [
    join(demoFolder, 'end-user/end-user.mjs'), '--viewer-url', server.link, '--screenshots', folder,
    '--timeout', '60', ...more,
  ]);
  const reported = () => endUser.lines.map((line) => JSON.parse(line));
  return { ...endUser, folder, reported };
}

const named = (name) => (line) => (JSON.parse(line).event === name ? JSON.parse(line) : undefined);

test('the end user signs in through the picture, after a wrong password', async (t) => {
  const { server, guest } = await startGuest(t);
  const endUser = startEndUser(t, server, ['--wrong-password-first']);
  const first = await endUser.until(named('first_frame'));
  await endUser.until(named('continued'));
  assert.ok(!endUser.reported().some(({ event }) => event === 'ready'), 'a bare desktop is not the sign-in page');
  server.set({ state: 'awaiting_user', signInUrlHost: 'accounts.anteroom.test' });
  await guest.show('sign-in');
  const { code, errors } = await endUser.exit;
  assert.equal(code, 0, `${errors}\n${endUser.lines.join('\n')}`);
  const events = endUser.reported().map(({ event }) => event).filter((event) => event !== 'continued');
  assert.deepEqual(events, ['first_frame', 'ready', 'way', 'refused', 'typed', 'left_page', 'ended']);
  assert.ok(endUser.reported().find(({ event }) => event === 'ready').at_ms >= first.at_ms);
  assert.equal(endUser.reported().at(-1).ok, true);
  assert.ok(existsSync(join(endUser.folder, 'end-user-ended.png')));
});

test('a session that ends before the sign-in is a failure with its reason', async (t) => {
  const { server } = await startGuest(t);
  const endUser = startEndUser(t, server);
  await endUser.until(named('continued'));
  server.set({
    state: 'ended', reason: { code: 'sandbox_exited', message: 'the VM ended unexpectedly' }, teardown: 'torn_down',
  });
  assert.equal((await endUser.exit).code, 1);
  const failed = endUser.reported().at(-1);
  assert.equal(failed.event, 'failed');
  assert.match(failed.why, /The VM ended unexpectedly/);
  assert.ok(existsSync(failed.screenshot));
});
