// A viewer in headless Chromium for the tests, with a fake server and a fake room behind it.

import { chromium } from 'playwright-core';

import { chromiumArguments } from '../../demo/person/chromium.mjs';
import { fakeSession, startFakeServer } from './fake-server.mjs';
import { startFakeRoom } from './fake-room.mjs';

/** A viewer at its introduction; `complaints` collects what the browser holds against the page. */
export async function openViewer(t, session = {}, { takeCode, ...browsing } = {}) {
  let room;
  const server = await startFakeServer({
    session: fakeSession({ state: 'awaiting_user', signInUrlHost: 'accounts.anteroom.test', ...session }),
    answer: (sdp) => room.answer(sdp),
    takeCode,
  });
  t.after(() => server.close());
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: chromiumArguments() });
  t.after(() => browser.close());
  room = await startFakeRoom(await browser.newContext(), server.origin);
  await room.show('sign-in');
  const context = await browser.newContext({ viewport: { width: 1280, height: 769 }, ...browsing });
  const page = await context.newPage();
  const complaints = [];
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(String(error)));
  await page.goto(server.link);
  await page.locator('[data-action=continue]').waitFor();
  return { server, room, page, context, complaints };
}
