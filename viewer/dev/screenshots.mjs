// Takes pictures of every screen, for people to look at: node dev/screenshots.mjs [FOLDER]

import { mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { chromium } from 'playwright-core';

import { chromiumArguments } from '../../demo/person/chromium.mjs';
import { fakeSession, startFakeServer } from './fake-server.mjs';
import { startFakeRoom } from './fake-room.mjs';

const folder = process.argv[2] ?? join(tmpdir(), 'anteroom-screenshots');
mkdirSync(folder, { recursive: true });

const TIMELINE = [
  [0, 'the session was requested'], [350, 'the virtual machine started (qemu, tcg)'],
  [6200, 'the agent in the virtual machine answered'], [9100, 'the desktop is ready'],
  [31_000, 'the command-line tool gave its sign-in address'], [42_500, 'the sign-in page is open'],
];
const withTimeline = (count) => {
  const session = fakeSession();
  return { ...session, timeline: TIMELINE.slice(0, count).map(([at, message]) => ({ at: session.createdAt + at, kind: 'x', message })) };
};
const ended = (code, message, more = {}) => ({
  ...withTimeline(6), state: 'ended', reason: { code, message }, room: 'demolished', leftovers: [], ...more,
});

const SCENES = [
  { name: 'intro', session: fakeSession() },
  { name: 'intro-dark', session: { ...fakeSession({ state: 'awaiting_user' }), credential: { openableBy: 'caller', recipient: 'age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p' } }, dark: true },
  { name: 'intro-no-isolation', session: fakeSession({ isolation: 'none', emulated: false }) },
  { name: 'intro-narrow', session: fakeSession(), width: 390, height: 844 },
  { name: 'waiting', session: { ...withTimeline(3), state: 'preparing' }, enter: true },
  { name: 'waiting-narrow', session: { ...withTimeline(3), state: 'preparing' }, enter: true, width: 390, height: 844 },
  { name: 'room', session: { ...withTimeline(6), state: 'awaiting_user', signInUrlHost: 'accounts.anteroom.test' }, enter: true, room: true },
  { name: 'room-short-of-time', session: { ...withTimeline(6), state: 'awaiting_user', signInUrlHost: 'accounts.anteroom.test', isolation: 'none', deadline: Date.now() + 45_000 }, enter: true, room: true, width: 1000 },
  { name: 'room-narrow', session: { ...withTimeline(6), state: 'awaiting_user', signInUrlHost: 'accounts.anteroom.test' }, enter: true, room: true, width: 390, height: 844, act: (page) => page.getByRole('button', { name: 'Menu' }).click() },
  { name: 'paste', session: { ...withTimeline(6), state: 'awaiting_user', signInUrlHost: 'accounts.anteroom.test' }, enter: true, room: true, act: (page) => page.getByRole('button', { name: 'Paste text…' }).click() },
  { name: 'cancel-dark', session: { ...withTimeline(6), state: 'awaiting_user' }, enter: true, room: true, dark: true, act: (page) => page.getByRole('button', { name: 'Cancel sign-in' }).click() },
  { name: 'ended-ok', session: ended('completed', 'signed in') },
  { name: 'ended-ok-dark', session: ended('completed', 'signed in'), dark: true, act: (page) => page.locator('summary').click() },
  { name: 'ended-error', session: ended('vm_exited', 'the virtual machine ended unasked: its process was killed by signal 9 (SIGKILL); the console’s last line: [ 2.1] Kernel panic', { leftovers: [{ kind: 'file', what: '/run/anteroom/s-1/console.log' }] }) },
  { name: 'ended-narrow', session: ended('timed_out', 'the session’s 600 s were over while awaiting user; start again, or ask for more with ttlSeconds'), width: 390, height: 844 },
  { name: 'link-used', session: fakeSession(), secret: 'wrong' },
];

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: chromiumArguments() });
try {
  for (const scene of SCENES) await takePicture(scene);
} finally {
  await browser.close();
}

async function takePicture({ name, session, dark, width = 1280, height = 720, enter, room, act, secret }) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: dark ? 'dark' : 'light' });
  let fakeRoom;
  const server = await startFakeServer({ session, ...(room && { answer: (sdp) => fakeRoom.answer(sdp) }) });
  try {
    if (room) {
      fakeRoom = await startFakeRoom(await browser.newContext(), server.origin);
      await fakeRoom.show('sign-in');
    }
    const page = await context.newPage();
    page.on('console', (message) => ['error', 'warning'].includes(message.type()) && process.stderr.write(`${name}: ${message.text()}\n`));
    page.on('pageerror', (error) => process.stderr.write(`${name}: ${error}\n`));
    await page.goto(secret ? server.link.replace('fake-secret', secret) : server.link);
    await page.locator('.card, .room').first().waitFor();
    if (enter) await page.locator('[data-action=continue]').click();
    if (room) {
      await page.locator('.waiting').waitFor({ state: 'detached' });
      await page.getByText(/Connected · \d+ ms/).waitFor();
    }
    await act?.(page);
    await page.screenshot({ path: join(folder, `${name}.png`) });
    process.stdout.write(`${join(folder, `${name}.png`)}\n`);
  } finally {
    await context.close();
    await server.close();
  }
}
