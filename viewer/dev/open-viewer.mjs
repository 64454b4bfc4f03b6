// A viewer in headless Chromium for the tests, with a fake server and a fake guest behind it.

import { after } from 'node:test';

import { chromium } from 'playwright-core';

import { chromiumArguments } from '../../demo/end-user/chromium.mjs';
import { fakeSession, startFakeServer } from './fake-server.mjs';
import { startFakeGuest } from './fake-guest.mjs';
import { LONGEST_MS } from './waiting.mjs';

/** One for all tests of a file: a test has contexts of its own, which share neither cookies nor storage. */
let browser;
after(async () => (await browser)?.close());

/** A viewer at its introduction; `complaints` collects what the browser holds against the page. */
export async function openViewer(t, session = {}, { takeCode, ...browsing } = {}) {
  let guest;
  const server = await startFakeServer({
    session: fakeSession({ state: 'awaiting_user', signInUrlHost: 'accounts.anteroom.test', ...session }),
    answer: (sdp) => guest.answer(sdp),
    takeCode,
  });
  t.after(() => server.close());
  browser ??= chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: chromiumArguments() });
  const newContext = async (options) => {
    const context = await (await browser).newContext(options);
    // Far more than a busy machine needs.
    context.setDefaultTimeout(LONGEST_MS);
    t.after(() => context.close());
    return context;
  };
  guest = await startFakeGuest(await newContext(), server.origin);
  await guest.show('sign-in');
  const context = await newContext({ viewport: { width: 1280, height: 769 }, ...browsing });
  const page = await context.newPage();
  const complaints = [];
  page.on('console', (message) => ['error', 'warning'].includes(message.type()) && complaints.push(message.text()));
  page.on('pageerror', (error) => complaints.push(String(error)));
  await page.goto(server.link);
  await page.locator('[data-action=continue]').waitFor();
  return { server, guest, page, context, complaints, newContext };
}
