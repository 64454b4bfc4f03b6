// Signing in with one's own browser: the card, in headless Chromium, with a fake server behind it.
// Needs dist/, which "npm run build" makes; `cargo xtask test` runs both.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { fakeTurn } from './fake-server.mjs';
import { openViewer } from './open-viewer.mjs';
import { becomes, takenIn, textsOf } from './waiting.mjs';

const FIELD = 'The code that the page shows at the end';
const SEND = { name: 'Send the code' };

async function openCard(t, method, more = {}) {
  const viewer = await openViewer(t, fakeTurn(method, more.awaiting), more);
  await viewer.page.locator('[data-action=continue]').click();
  await viewer.page.getByRole('heading', { name: 'Open the page' }).waitFor();
  return viewer;
}

/** Counts the WebRTC connections that the page makes from its next load on. */
const countConnections = (page) => page.addInitScript(() => {
  window.peers = 0;
  window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...rest) { super(...rest); window.peers += 1; }
  };
});

async function send(page, code) {
  await page.getByLabel(FIELD).fill(code);
  await page.getByLabel(FIELD).press('Enter');
}

const alert = (page) => page.locator('.code-form [role=alert]');

/** It says so for a moment only. */
async function saysOnCopying(page, text) {
  const said = await textsOf(page, '.device-code-row [role=status]');
  await page.getByRole('button', { name: 'Copy the code' }).click();
  await page.waitForFunction(([texts, wanted]) => texts.includes(wanted), [said, text]);
}

/** The field shows that a code is on its way before the server has it. */
const gotCodes = ({ codes }, wanted) => becomes(() => [...codes], wanted);

test('the page opens in a tab of its own that knows nothing of the session', async (t) => {
  const { page, context, complaints } = await openCard(t, 'paste_code');
  const link = page.getByRole('link', { name: 'Open accounts.anteroom.test' });
  assert.equal(await link.getAttribute('href'), 'https://accounts.anteroom.test/oauth/authorize?client=demo&state=1');
  assert.equal(await link.getAttribute('target'), '_blank');
  assert.equal(await link.getAttribute('rel'), 'noopener noreferrer');
  assert.ok(await link.evaluate((it) => it === document.activeElement), 'it has the focus');
  await page.getByText('It opens in a new tab and leads to https://accounts.anteroom.test/').waitFor();
  await context.route('https://accounts.anteroom.test/**', (route) => route.fulfill({ contentType: 'text/html', body: '<p>the page</p>' }));
  const [tab] = await Promise.all([context.waitForEvent('page'), link.click()]);
  await tab.getByText('the page').waitFor();
  assert.deepEqual(await tab.evaluate(() => [window.opener, document.referrer]), [null, '']);
  assert.deepEqual(complaints, []);
});

test('an address that is not a web page is not opened', async (t) => {
  const { page } = await openViewer(t, fakeTurn('paste_code', { url: 'javascript:alert(document.domain)' }));
  await page.locator('[data-action=continue]').click();
  await page.getByText('The tool gave an address that is not a web page').waitFor();
  assert.equal(await page.getByRole('link').count(), 0);
  assert.equal(await page.locator('a[href]').count(), 0);
});

test('a code for the page is shown and copied, and goes to its host only', async (t) => {
  const { page, context, complaints } = await openCard(t, 'device_code');
  await context.grantPermissions(['clipboard-read', 'clipboard-write']);
  assert.equal(await page.locator('.device-code').textContent(), 'WXYZ-2048');
  await page.getByText('enter it at code.anteroom.test and nowhere else').waitFor();
  await saysOnCopying(page, 'Copied');
  assert.equal(await page.evaluate(() => navigator.clipboard.readText()), 'WXYZ-2048');
  assert.equal(await page.getByLabel(FIELD).isVisible(), false, 'no code is brought back');
  assert.deepEqual(complaints, []);
});

test('a code that cannot be copied is selected', async (t) => {
  const { page } = await openViewer(t, fakeTurn('device_code'));
  await page.evaluate(() => Object.defineProperty(navigator, 'clipboard', { value: undefined }));
  await page.locator('[data-action=continue]').click();
  await saysOnCopying(page, 'Selected: copy it with Ctrl+C');
  assert.equal(await page.evaluate(() => getSelection().toString()), 'WXYZ-2048');
});

test('a message to the end user is shown on the card', async (t) => {
  const { server, page } = await openCard(t, 'device_code');
  server.happened('end_user_notified', 'GitHub asks to wait');
  await page.locator('.sign-in > [role=alert]').getByText('GitHub asks to wait.').waitFor();
});

test('without a card it is shown above the picture', async (t) => {
  const { server, page } = await openViewer(t);
  await page.locator('[data-action=continue]').click();
  server.happened('end_user_notified', 'Google takes no sign-in in this browser');
  await page.getByRole('alert').getByText('Google takes no sign-in in this browser.').waitFor();
});

test('a desktop that cannot be opened is reported', async (t) => {
  const { server, page } = await openCard(t, 'device_code');
  await page.route('**/open-sign-in-page', (route) => route.fulfill({
    status: 409, contentType: 'application/problem+json', body: JSON.stringify({ title: 'Wrong state', detail: 'the desktop is not there yet', code: 'wrong_state' }),
  }));
  await page.getByRole('button', { name: 'Use the desktop’s browser instead' }).click();
  await page.getByRole('alert').getByText('The desktop is not there yet.').waitFor();
  assert.equal(server.offers.length, 0);
});

test('a code is sent once, trimmed, and leads on', async (t) => {
  const { server, page, complaints } = await openCard(t, 'paste_code');
  assert.ok(await page.getByRole('button', SEND).isDisabled(), 'nothing is nothing to send');
  const field = page.getByLabel(FIELD);
  assert.deepEqual(await field.evaluate((it) => [it.type, it.autocomplete, it.spellcheck]), ['text', 'off', false]);
  await send(page, '  abc#def ');
  await page.getByText('Checking the code…').waitFor();
  await page.locator('.code-form').evaluate((form) => form.requestSubmit());
  assert.equal(await field.getAttribute('readonly'), '');
  assert.ok(await page.getByRole('button', SEND).isDisabled());
  await gotCodes(server, ['abc#def']);
  server.happened('code_entered', 'the code was typed into the tool');
  server.set({ state: 'capturing', awaiting: undefined });
  await page.getByRole('heading', { name: 'Saving your sign-in' }).waitFor();
  assert.equal(await field.inputValue(), '', 'no code stays behind');
  assert.deepEqual(server.codes, ['abc#def'], 'and none was sent twice');
  assert.equal(await page.getByRole('heading', { name: 'Open the page' }).isVisible(), false);
  assert.deepEqual(complaints, []);
});

test('a code that is refused shows the server’s reason, and can be corrected', async (t) => {
  let takes = false;
  const { server, page } = await openCard(t, 'paste_code', {
    takeCode: () => takes ? undefined : { status: 422, title: 'Code refused', detail: 'a code has no spaces in it', code: 'code_refused' },
  });
  await send(page, 'a b');
  await alert(page).getByText('A code has no spaces in it.').waitFor();
  const field = page.getByLabel(FIELD);
  assert.ok(await field.evaluate((it) => it === document.activeElement && !it.readOnly));
  assert.equal(await field.getAttribute('aria-invalid'), 'true');
  assert.equal(await field.inputValue(), 'a b', 'it is there to be mended');
  takes = true;
  await send(page, 'ab');
  await page.getByText('Checking the code…').waitFor();
  assert.equal(await alert(page).isVisible(), false);
  await gotCodes(server, ['a b', 'ab']);
});

test('a code that the tool does not take frees the field; the next one is right', async (t) => {
  const { server, page } = await openCard(t, 'paste_code');
  const field = page.getByLabel(FIELD);
  await send(page, 'wrong');
  await page.getByText('Checking the code…').waitFor();
  server.happened('code_entered', 'the code was typed into the tool');
  server.happened('end_user_notified', 'the tool did not take the code');
  await alert(page).getByText('The tool did not take the code.').waitFor();
  assert.deepEqual(await field.evaluate((it) => [it.value, it.readOnly, it === document.activeElement]), ['', false, true]);
  await send(page, 'right');
  await page.getByText('Checking the code…').waitFor();
  assert.equal(await alert(page).isVisible(), false, 'what was said of the last code is not said of this one');
  // Nothing was said of the new one yet.
  server.happened('viewer_joined', 'a viewer joined');
  server.happened('code_entered', 'the code was typed into the tool');
  await takenIn(server, page);
  assert.equal(await field.getAttribute('readonly'), '');
  server.set({ state: 'capturing', awaiting: undefined });
  await page.getByRole('heading', { name: 'Saving your sign-in' }).waitFor();
  await gotCodes(server, ['wrong', 'right']);
});

test('a tool that says nothing of a code does not lock the field', async (t) => {
  const { server, page } = await openCard(t, 'paste_code');
  await page.clock.install();
  // From here on time passes when the test says so.
  await page.clock.pauseAt(Date.now() + 60_000);
  const waits = await page.evaluateHandle(() => {
    const begun = [];
    const { setTimeout } = window;
    window.setTimeout = (act, ms, ...more) => {
      begun.push(ms);
      return setTimeout(act, ms, ...more);
    };
    return begun;
  });
  await send(page, 'abc');
  await page.getByText('Checking the code…').waitFor();
  // The tool's time begins when the server has taken the code.
  await page.waitForFunction((begun) => begun.includes(30_000), waits);
  await page.clock.fastForward(29_000);
  const field = page.getByLabel(FIELD);
  assert.equal(await field.getAttribute('readonly'), '');
  await page.clock.fastForward(2_000);
  await page.getByText('The tool has not reacted yet.').waitFor();
  assert.deepEqual(await field.evaluate((it) => [it.value, it.readOnly]), ['abc', false]);
  await send(page, 'abc');
  await page.getByText('Checking the code…').waitFor();
  await gotCodes(server, ['abc', 'abc']);
});

test('no picture is connected before the desktop is asked for, and none when it is hidden', async (t) => {
  const { server, guest, page, complaints } = await openViewer(t, { method: 'paste_code', state: 'booting' });
  await countConnections(page);
  await page.reload();
  await page.locator('[data-action=continue]').click();
  await page.getByRole('heading', { name: 'Starting your sign-in desktop' }).waitFor();
  server.set({ state: 'ready' });
  await page.getByRole('heading', { name: 'Starting your sign-in' }).waitFor();
  server.set({ state: 'preparing' });
  await page.getByText('Starting the sign-in…').waitFor();
  server.set(fakeTurn('paste_code'));
  await page.getByRole('heading', { name: 'Open the page' }).waitFor();
  await takenIn(server, page);
  const player = () => page.evaluate(() => {
    const { live, connectionState } = document.querySelector('anteroom-player');
    return [live, connectionState, window.peers];
  });
  assert.deepEqual(await player(), [false, 'off', 0]);
  assert.deepEqual([server.offers.length, server.terminal.connections(), server.opened()], [0, 0, 0]);
  assert.equal(await page.locator('anteroom-player').isVisible(), false);

  await page.getByRole('button', { name: 'Use the desktop’s browser instead' }).click();
  await page.getByText(/Connected · \d+ ms/).waitFor();
  assert.equal(server.opened(), 1);
  assert.ok(await page.locator('anteroom-player').isVisible());
  assert.ok(await page.getByLabel(FIELD).isVisible(), 'the code can be copied from the picture');
  const from = (await guest.messages()).length;
  await page.locator('anteroom-player').click();
  await page.keyboard.press('KeyA');
  await guest.page.waitForFunction((wanted) => window.fakeGuest.messages.slice(wanted).some(({ code }) => code === 'KeyA'), from);

  await page.getByRole('button', { name: 'Hide the desktop' }).click();
  await page.locator('anteroom-player').waitFor({ state: 'hidden' });
  assert.equal((await player())[0], false);
  assert.deepEqual(complaints, []);
});

test('a phone shows all of the card', async (t) => {
  const { page } = await openCard(t, 'paste_code', { viewport: { width: 360, height: 740 }, isMobile: true, hasTouch: true });
  const wide = await page.evaluate(() => [...document.querySelectorAll('.desktop *')]
    .filter((it) => it.checkVisibility() && it.getBoundingClientRect().right > innerWidth && !it.closest('.visually-hidden'))
    .map((it) => it.className));
  assert.deepEqual(wide, []);
  await page.getByRole('button', { name: 'Use the desktop’s browser instead' }).tap();
  await page.getByText(/Connected · \d+ ms/).waitFor();
  await page.getByLabel(FIELD).scrollIntoViewIfNeeded();
  const [picture, field] = [await page.locator('anteroom-player').boundingBox(), await page.getByLabel(FIELD).boundingBox()];
  assert.ok(picture.y > 0 && picture.y + picture.height < field.y && field.y < 740, 'picture and field are in sight together');
});
