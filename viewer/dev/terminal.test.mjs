// The tool's terminal in headless Chromium, under the server's own content security policy.
// Needs dist/, which "npm run build" makes; `cargo xtask test` runs both.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { fakeTurn, UNKNOWN_PROMPT } from './fake-server.mjs';
import { openViewer } from './open-viewer.mjs';
import { becomes, takenIn, textsOf } from './waiting.mjs';

const TYPING = { name: 'Let me type' };

async function enter(t, session, more) {
  const viewer = await openViewer(t, session, more);
  await viewer.page.locator('[data-action=continue]').click();
  return viewer;
}

async function openTerminal(page) {
  await page.getByRole('button', { name: 'Terminal', exact: true }).click();
  await page.locator('.xterm').waitFor();
}

const shows = (page, text) => page.locator('.xterm-rows').getByText(text).waitFor();

/** Waits until what was typed into the tool is `wanted`. */
const typed = ({ server }, wanted) => becomes(() => server.terminal.typed(), wanted);

const styleOf = (page, text) => page.locator('.xterm-rows span', { hasText: text }).first().evaluate((it) => {
  const { color, backgroundColor, fontWeight, display } = getComputedStyle(it);
  return { color, backgroundColor, fontWeight, display };
});

test('it is drawn as the tool draws it, and the strict policy blocks nothing', async (t) => {
  const { server, page, complaints } = await enter(t, fakeTurn('paste_code'));
  assert.equal(server.terminal.connections(), 0, 'nothing is connected before it is shown');
  assert.equal(await page.evaluate(() => performance.getEntriesByType('resource').filter(({ name }) => /\/screen-/.test(name)).length), 0, 'nor loaded');
  server.terminal.draw('\x1b[H\x1b[J\x1b[1mBold\x1b[m \x1b[38;2;120;170;255mBlue\x1b[m \x1b[48;2;90;20;20mGround\x1b[m \x1b[31mRed\x1b[m');
  await openTerminal(page);
  await shows(page, 'Blue');
  assert.equal((await styleOf(page, 'Bold')).fontWeight, '700');
  assert.equal((await styleOf(page, 'Blue')).color, 'rgb(120, 170, 255)');
  assert.equal((await styleOf(page, 'Ground')).backgroundColor, 'rgb(90, 20, 20)');
  assert.equal((await styleOf(page, 'Red')).display, 'inline-block', 'its sheets count');
  server.terminal.draw('\x1b[5;1HЗдравствуй 你好');
  await shows(page, 'Здравствуй');
  // What screen readers get.
  await page.locator('pre', { hasText: /^Bold Blue Ground Red\n\n\n\nЗдравствуй 你好$/ }).waitFor({ state: 'attached' });
  assert.equal(await page.locator('style').count(), 0);
  assert.deepEqual(complaints, []);
});

test('it takes no key before it is let, and every key then', async (t) => {
  const viewer = await enter(t, fakeTurn('paste_code'));
  const { page, complaints } = viewer;
  await openTerminal(page);
  await page.locator('.xterm').click();
  await page.keyboard.type('early');
  await page.keyboard.insertText('early');
  await page.mouse.wheel(0, 300);
  await page.getByRole('switch', TYPING).click();
  await page.keyboard.type('1é');
  await page.keyboard.press('ArrowDown');
  await page.keyboard.press('Tab');
  await page.locator('.xterm').hover();
  await page.mouse.wheel(0, 300);
  await page.keyboard.press('Enter');
  await typed(viewer, '1é\x1b[B\t\r');
  await page.keyboard.press('Control+Alt+KeyM');
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), 'Terminal', 'the keyboard is given back');
  await page.getByRole('switch', TYPING).click();
  await page.locator('.xterm').click();
  await page.keyboard.type('late');
  await page.keyboard.press('Tab');
  assert.ok(await page.evaluate(() => !document.activeElement?.closest('.xterm')), 'the Tab key leads on');
  // Had any of it gone out, it would be before what is typed now.
  await page.getByRole('switch', TYPING).click();
  await page.keyboard.type('2');
  await typed(viewer, '1é\x1b[B\t\r2');
  assert.deepEqual(complaints, []);
});

test('no link in it can be followed, and it writes nothing to the clipboard', async (t) => {
  const { server, page, context, complaints } = await enter(t, fakeTurn('paste_code'));
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  await page.evaluate(() => navigator.clipboard.writeText('mine'));
  server.terminal.draw('\x1b]8;;https://evil.test/\x07hidden\x1b]8;;\x07 https://plain.test/ \x1b]52;c;ZXZpbA==\x07\x1b]0;evil title\x07 end');
  await openTerminal(page);
  await page.getByRole('switch', TYPING).click();
  await shows(page, 'end');
  const opened = [];
  context.on('page', (tab) => opened.push(tab));
  page.on('dialog', (dialog) => { opened.push(dialog.message()); void dialog.dismiss(); });
  const box = await page.locator('.xterm-rows > div').first().boundingBox();
  for (const x of [10, 30, 90, 150]) {
    await page.mouse.move(box.x + x, box.y + 6);
    await page.mouse.click(box.x + x, box.y + 6, { modifiers: x === 150 ? ['Control'] : [] });
  }
  assert.equal(await page.locator('.xterm-cursor-pointer').count(), 0);
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), 'mine');
  assert.equal(await page.title(), 'Anteroom demo CLI · Anteroom');
  // The browser reports tabs in their order.
  const ours = await context.newPage();
  assert.ok(opened.length === 1 && opened[0] === ours, `also opened: ${opened.filter((it) => it !== ours).map((it) => it.url?.() ?? it)}`);
  assert.deepEqual(complaints, []);
});

test('that it could not be loaded is said', async (t) => {
  const { page, server } = await enter(t, fakeTurn('paste_code'));
  await page.route('**/assets/screen-*.js', (route) => route.abort());
  await page.getByRole('button', { name: 'Terminal', exact: true }).click();
  await page.getByRole('status').getByText('The terminal could not be loaded. Reload this page.').waitFor();
  assert.equal(server.terminal.connections(), 0);
});

test('a line that drops comes back, and draws on an empty screen', async (t) => {
  const viewer = await enter(t, fakeTurn('paste_code'));
  const { server, page } = viewer;
  server.terminal.draw('before');
  await openTerminal(page);
  await shows(page, 'before');
  server.terminal.forget();
  server.terminal.draw('\x1b[3;1Hafter');
  server.terminal.forget();
  server.terminal.draw('');
  server.terminal.drop();
  await page.waitForFunction(() => document.querySelector('.xterm-rows').textContent.trim() === '');
  server.terminal.draw('again');
  await shows(page, 'again');
  assert.equal(server.terminal.connections(), 2);
  await page.getByRole('button', { name: 'Close the terminal' }).click();
  await becomes(() => server.terminal.connected(), 0, 'hidden, it is not connected');
  await openTerminal(page);
  await shows(page, 'again');
  assert.equal(server.terminal.connections(), 3, 'nor was it meanwhile');
  assert.equal(await page.getByRole('switch', TYPING).isChecked(), false);
  server.set({ state: 'ended', awaiting: undefined, reason: { code: 'completed', message: 'signed in' }, teardown: 'torn_down', leftovers: [] });
  await page.getByRole('heading', { name: 'You are signed in' }).waitFor();
  await becomes(() => server.terminal.connected(), 0);
});

// How long the pauses are: test/line.test.ts.
test('a line that drops again and again is said, and tried again each time', async (t) => {
  const { server, page } = await enter(t, fakeTurn('paste_code'));
  await openTerminal(page);
  const isConnected = () => page.waitForFunction(() => document.querySelector('.terminal-state').textContent === '');
  await becomes(() => server.terminal.connections(), 1);
  await isConnected();
  const said = await textsOf(page, '.terminal-state');
  for (let drops = 1; drops <= 3; drops += 1) {
    server.terminal.drop();
    await becomes(() => server.terminal.connections(), 1 + drops);
    await isConnected();
  }
  assert.deepEqual(await said.jsonValue(), ['', 'Reconnecting', '', 'Reconnecting', '', 'Reconnecting', '']);
});

for (const method of ['paste_code', 'device_code', 'browser']) {
  test(`what only the terminal can answer opens it, with typing on: ${method}`, async (t) => {
    const viewer = await openViewer(t, { method, state: 'preparing' });
    const { server, page, complaints } = viewer;
    server.terminal.draw('Select login method:');
    server.set(fakeTurn(method, UNKNOWN_PROMPT));
    await takenIn(server, page);
    assert.equal(await page.locator('.terminal-panel').isVisible(), false, 'not behind the introduction');
    assert.equal(server.terminal.connections(), 0);
    await page.locator('[data-action=continue]').click();
    await page.getByRole('alert').getByText('The tool asks something that Anteroom does not know.').waitFor();
    await shows(page, 'Select login method:');
    assert.ok(await page.getByRole('switch', TYPING).isChecked());
    await page.keyboard.type('1');
    await typed(viewer, '1');
    // There is nothing else to see where there is no picture.
    assert.equal(await page.getByRole('button', { name: 'Close the terminal' }).isVisible(), method === 'browser');
    assert.equal(await page.getByRole('button', { name: 'Terminal', exact: true }).isDisabled(), method !== 'browser');
    server.set(fakeTurn(method));
    await page.locator('.terminal-panel').waitFor({ state: 'hidden' });
    if (method !== 'browser') await page.getByRole('heading', { name: 'Open the page' }).waitFor();
    assert.deepEqual(complaints, []);
  });
}

test('over the picture it leaves the picture connected, and a second click takes it away', async (t) => {
  const { server, guest, page, complaints } = await enter(t);
  await page.getByText(/Connected · \d+ ms/).waitFor();
  const offers = server.offers.length;
  server.terminal.draw('hello');
  await openTerminal(page);
  await shows(page, 'hello');
  const toggle = page.getByRole('button', { name: 'Terminal', exact: true });
  assert.equal(await toggle.getAttribute('aria-pressed'), 'true');
  await toggle.click();
  await page.locator('.terminal-panel').waitFor({ state: 'hidden' });
  assert.equal(await toggle.getAttribute('aria-pressed'), 'false');
  assert.equal(server.offers.length, offers);
  await page.keyboard.press('KeyB');
  await guest.page.waitForFunction(() => window.fakeGuest.messages.some(({ code }) => code === 'KeyB'));
  assert.deepEqual(complaints, []);
});

test('on a phone it is moved sideways, not made smaller', async (t) => {
  const { server, page } = await enter(t, fakeTurn('paste_code'), { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true });
  server.terminal.draw('0123456789'.repeat(12));
  await page.getByRole('button', { name: 'Menu' }).tap();
  await page.getByRole('button', { name: 'Terminal', exact: true }).tap();
  await shows(page, '0123456789');
  const ground = page.locator('.terminal-ground');
  const sizes = await ground.evaluate((it) => ({
    inside: it.scrollWidth, outside: it.clientWidth, page: document.documentElement.scrollWidth,
    text: parseFloat(getComputedStyle(it.querySelector('.xterm-rows')).fontSize),
  }));
  assert.ok(sizes.inside > 800 && sizes.outside <= 360 && sizes.page === 360 && sizes.text >= 12, JSON.stringify(sizes));
  const finger = await page.context().newCDPSession(page);
  const touch = (type, ...touchPoints) => finger.send('Input.dispatchTouchEvent', { type, touchPoints });
  await touch('touchStart', { x: 300, y: 400 });
  for (let x = 290; x > 50; x -= 10) await touch('touchMove', { x, y: 400 });
  await touch('touchEnd');
  // It is moved aside from the page, which hears of it with a later frame.
  await page.waitForFunction(() => document.querySelector('.terminal-ground').scrollLeft > 100);
});
