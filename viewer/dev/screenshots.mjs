// Takes pictures of every screen, for people to look at: node dev/screenshots.mjs [FOLDER [PART_OF_A_NAME]]

import { mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { chromium } from 'playwright-core';

import { chromiumArguments } from '../../demo/end-user/chromium.mjs';
import { fakeSession, fakeTurn, startFakeServer, UNKNOWN_PROMPT } from './fake-server.mjs';
import { startFakeGuest } from './fake-guest.mjs';

const folder = process.argv[2] ?? join(tmpdir(), 'anteroom-screenshots');
const wanted = process.argv[3] ?? '';
mkdirSync(folder, { recursive: true });

const TIMELINE = [
  [0, 'the session was requested'], [350, 'qemu started an emulated VM'],
  [6200, 'the agent 0.1.0 connected from Linux 6.1.0'], [9100, 'the desktop is ready'],
  [31_000, 'the tool asks to sign in at login.example.com'], [42_500, 'the sign-in page is open'],
];
const withTimeline = (count) => {
  const session = fakeSession();
  return { ...session, timeline: TIMELINE.slice(0, count).map(([at, message]) => ({ at: session.createdAt + at, kind: 'x', message })) };
};
const ended = (code, message, more = {}) => ({
  ...withTimeline(6), state: 'ended', reason: { code, message }, teardown: 'torn_down', leftovers: [], ...more,
});

const SCREEN = [
  '\x1b[H\x1b[J\x1b[m\x1b[1mWelcome to the Anteroom demo CLI\x1b[m\r\n',
  '\r\nBrowser did not open? Use the address below to sign in:\r\n\r\n',
  '\x1b[38;2;120;170;255mhttps://accounts.anteroom.test/oauth/authorize?client=demo&state=1\x1b[m\r\n',
  '\r\n\x1b[32m✔\x1b[m ready   \x1b[33m!\x1b[m slow network   \x1b[2mpress Esc to cancel\x1b[m   \x1b[7m inverse \x1b[m   \x1b[34mdark blue\x1b[m\r\n',
  '\r\n┌────────────────────────────┐\r\n│ Select login method:       │\r\n│ \x1b[36m❯ 1. Account\x1b[m               │\r\n│   2. API key               │\r\n└────────────────────────────┘\r\n',
  `\r\n${'0123456789'.repeat(12)}\r\nPaste code here > `,
].join('');
const turn = (method, more, timeline = []) => {
  const session = withTimeline(4);
  const later = timeline.map(([kind, message], index) => ({ at: session.createdAt + 60_000 + index, kind, message }));
  return { ...session, ...fakeTurn(method, more), timeline: [...session.timeline, ...later] };
};
const WRONG = [['code_entered', 'the code was typed into the tool'], ['end_user_notified', 'The tool did not take the code. Copy all of it, with the part after the #, and paste it again.']];
const UNREACHED = [['host_unreachable', 'the sandbox cannot reach platform.claude.com (connecting failed: Connection refused (os error 111)); if the sign-in does not continue, start it again in a few minutes']];
const VISITS = (session) => [
  { at: session.createdAt + 5000, opened: 'link', viewer: { by: 'link', generation: 1 } },
  { at: session.createdAt + 6000, opened: 'picture', viewer: { by: 'link', generation: 1 } },
  { at: session.createdAt + 9000, opened: 'terminal', viewer: { by: 'link', generation: 1 } },
  { at: session.createdAt + 40_000, opened: 'vnc', viewer: { by: 'api_key', key: 'deploy' } },
];
const visited = (session) => ({ ...session, visitsOfOthers: VISITS(session) });
const openTerminal = async (page) => {
  const menu = page.getByRole('button', { name: 'Menu' });
  if (await menu.isVisible()) await menu.click();
  await page.getByRole('button', { name: 'Terminal', exact: true }).click();
  await page.locator('.xterm-rows').getByText('Welcome').waitFor();
};
const WIDE = { width: 1280, height: 800 };
const PHONE = { width: 360, height: 740 };
const inAllWays = ({ name, ...scene }) => [
  { name, ...WIDE, ...scene },
  { name: `${name}-dark`, ...WIDE, ...scene, dark: true },
  { name: `${name}-phone`, ...PHONE, ...scene },
  { name: `${name}-phone-dark`, ...PHONE, ...scene, dark: true },
];

const SCENES = [
  ...inAllWays({ name: 'card-paste-code', session: turn('paste_code'), enter: true }),
  ...inAllWays({ name: 'card-wrong-code', session: turn('paste_code', {}, WRONG), enter: true }),
  ...inAllWays({ name: 'card-unreached', session: turn('paste_code', {}, [WRONG[0], ...UNREACHED]), enter: true }),
  { name: 'desktop-unreached', session: { ...turn('browser', {}, UNREACHED), state: 'awaiting_user' }, ...WIDE, enter: true, guest: true },
  ...inAllWays({ name: 'card-device-code', session: turn('device_code'), enter: true }),
  ...inAllWays({ name: 'terminal', session: turn('paste_code'), enter: true, terminal: true, act: openTerminal }),
  ...inAllWays({ name: 'terminal-asks', session: turn('paste_code', UNKNOWN_PROMPT), enter: true, terminal: true, act: (page) => page.locator('.xterm-rows').getByText('Welcome').waitFor() }),
  { name: 'terminal-over-picture', session: { ...withTimeline(6), state: 'awaiting_user' }, ...WIDE, enter: true, guest: true, terminal: true, act: openTerminal },
  ...[WIDE, PHONE].map((size) => ({
    name: size === WIDE ? 'card-and-desktop' : 'card-and-desktop-phone', session: turn('paste_code'), ...size, enter: true, guest: true, wait: false,
    act: async (page) => {
      await page.getByRole('button', { name: 'Use the desktop’s browser instead' }).click();
      await page.getByText(/Connected · \d+ ms/).waitFor();
    },
  })),
  { name: 'card-checking', session: turn('paste_code'), ...WIDE, enter: true, act: async (page) => {
    await page.getByLabel('The code that the page shows at the end').fill('abcdef0123456789#xyz');
    await page.getByRole('button', { name: 'Send the code' }).click();
  } },
  { name: 'intro-own-browser', session: turn('device_code'), ...WIDE },
  { name: 'intro-own-browser-phone', session: turn('device_code'), ...PHONE },
  { name: 'waiting-own-browser', session: { ...withTimeline(3), state: 'preparing', method: 'paste_code' }, ...WIDE, enter: true },
  { name: 'ended-refused', session: ended('sign_in_refused', 'This account does not allow sign-in by device code. Switch it on under Settings, Security.') },
  { name: 'intro', session: fakeSession() },
  { name: 'intro-dark', session: { ...fakeSession({ state: 'awaiting_user' }), credential: { openableBy: 'caller', recipient: 'age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p' } }, dark: true },
  { name: 'intro-no-isolation', session: fakeSession({ isolation: 'none', emulated: false }) },
  { name: 'intro-narrow', session: fakeSession(), width: 390, height: 844 },
  { name: 'waiting', session: { ...withTimeline(3), state: 'preparing' }, enter: true },
  { name: 'waiting-narrow', session: { ...withTimeline(3), state: 'preparing' }, enter: true, width: 390, height: 844 },
  { name: 'desktop', session: { ...withTimeline(6), state: 'awaiting_user', signInUrlHost: 'accounts.anteroom.test' }, enter: true, guest: true },
  { name: 'desktop-short-of-time', session: { ...withTimeline(6), state: 'awaiting_user', signInUrlHost: 'accounts.anteroom.test', isolation: 'none', deadline: Date.now() + 45_000 }, enter: true, guest: true, width: 1000 },
  { name: 'desktop-laptop', session: { ...withTimeline(6), state: 'awaiting_user', signInUrlHost: 'accounts.a-long-name-of-a-company.example' }, enter: true, guest: true, width: 1366, height: 768 },
  { name: 'desktop-narrow', session: { ...withTimeline(6), state: 'awaiting_user', signInUrlHost: 'accounts.anteroom.test' }, enter: true, guest: true, width: 390, height: 844, act: (page) => page.getByRole('button', { name: 'Menu' }).click() },
  { name: 'paste', session: { ...withTimeline(6), state: 'awaiting_user', signInUrlHost: 'accounts.anteroom.test' }, enter: true, guest: true, act: (page) => page.getByRole('button', { name: 'Paste text…' }).click() },
  { name: 'cancel-dark', session: { ...withTimeline(6), state: 'awaiting_user' }, enter: true, guest: true, dark: true, act: (page) => page.getByRole('button', { name: 'Cancel sign-in' }).click() },
  { name: 'ended-ok', session: ended('completed', 'signed in') },
  { name: 'ended-ok-dark', session: ended('completed', 'signed in'), dark: true, act: (page) => page.locator('summary').click() },
  { name: 'ended-error', session: ended('sandbox_exited', 'the VM ended unexpectedly: its process was killed by signal 9 (SIGKILL); the console’s last line: [ 2.1] Kernel panic', { leftovers: [{ kind: 'file', what: '/run/anteroom/s-1/console.log' }] }) },
  { name: 'ended-narrow', session: ended('timed_out', 'the session timed out after 600 s while waiting for the end user to sign in; start again, with a longer ttlSeconds if needed'), width: 390, height: 844 },
  ...inAllWays({ name: 'ended-visited', session: visited(ended('completed', 'signed in')), act: (page) => page.locator('summary').click() }),
  ...inAllWays({ name: 'visited', session: visited(turn('paste_code')), enter: true }),
  { name: 'visited-intro', session: visited(fakeSession()) },
  ...inAllWays({ name: 'revoked', session: turn('paste_code'), enter: true, revoke: true, act: (page) => page.getByText('This link was closed').waitFor() }),
  { name: 'link-used', session: fakeSession(), secret: 'wrong' },
];

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium', args: chromiumArguments() });
try {
  for (const scene of SCENES.filter(({ name }) => name.includes(wanted))) await takePicture(scene);
} finally {
  await browser.close();
}

async function takePicture({ name, session, dark, width = 1280, height = 720, enter, guest, terminal, wait = true, act, secret, revoke }) {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: dark ? 'dark' : 'light' });
  let fakeGuest;
  const server = await startFakeServer({ session, ...(guest && { answer: (sdp) => fakeGuest.answer(sdp) }) });
  try {
    if (guest) {
      fakeGuest = await startFakeGuest(await browser.newContext(), server.origin);
      await fakeGuest.show('sign-in');
    }
    if (terminal) server.terminal.draw(SCREEN);
    const page = await context.newPage();
    page.on('console', (message) => ['error', 'warning'].includes(message.type()) && process.stderr.write(`${name}: ${message.text()}\n`));
    page.on('pageerror', (error) => process.stderr.write(`${name}: ${error}\n`));
    await page.goto(secret ? server.link.replace('fake-secret', secret) : server.link);
    await page.locator('.card, .desktop').first().waitFor();
    if (enter) await page.locator('[data-action=continue]').click();
    if (guest && wait) {
      await page.locator('.waiting').waitFor({ state: 'hidden' });
      await page.getByText(/Connected · \d+ ms/).waitFor();
    }
    if (revoke) server.revoke();
    await act?.(page);
    await page.screenshot({ path: join(folder, `${name}.png`) });
    process.stdout.write(`${join(folder, `${name}.png`)}\n`);
  } finally {
    await context.close();
    await server.close();
  }
}
