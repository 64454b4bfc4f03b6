// The viewer in headless Chromium, with a fake server and a fake guest behind it.
// Needs dist/, which "npm run build" makes; `cargo xtask test` runs both.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { openViewer } from './open-viewer.mjs';
import { received, sentBy, textsOf } from './waiting.mjs';

async function enter(page) {
  await page.locator('[data-action=continue]').click();
  await connected(page);
}

async function connected(page) {
  await page.locator('.waiting').waitFor({ state: 'hidden' });
  await page.getByText(/Connected · \d+ ms/).waitFor();
}

const key = (code, pressed) => ({ type: 'key', code, pressed });

test('the picture is there before Continue, but input is not', async (t) => {
  const viewer = await openViewer(t);
  const { page, complaints } = viewer;
  assert.equal(new URL(page.url()).hash, '', 'the secret is gone from the address');
  await page.waitForFunction(() => document.querySelector('anteroom-player').hasPicture);
  await page.mouse.click(640, 400);
  await page.keyboard.type('early');
  await enter(page);
  assert.deepEqual((await received(viewer)).filter(({ type }) => type !== 'release_all'), []);
  assert.deepEqual(await sentBy(viewer, 2, () => page.keyboard.type('a')), [key('KeyA', true), key('KeyA', false)]);
  assert.deepEqual(complaints, [], 'the strict policy blocks nothing, and nothing warns');
});

test('input arrives exactly as the guest reads it', async (t) => {
  const viewer = await openViewer(t);
  const { page } = viewer;
  await enter(page);
  const expect = async (act, messages) => assert.deepEqual(await sentBy(viewer, messages.length, act), messages);
  // The picture lies below the bar of 48 pixels and its line, pixel by pixel. A move goes out with the
  // next frame, which may come before the press or not: so the pointer is there first.
  await expect(() => page.mouse.move(740, 349), [{ type: 'pointer_move', x: 740, y: 300 }]);
  await expect(async () => {
    await page.mouse.down({ button: 'right' });
    await page.mouse.up({ button: 'right' });
  }, [
    { type: 'pointer_move', x: 740, y: 300 },
    { type: 'pointer_button', button: 'right', pressed: true },
    { type: 'pointer_move', x: 740, y: 300 },
    { type: 'pointer_button', button: 'right', pressed: false },
  ]);
  await expect(() => page.mouse.wheel(0, -300), [{ type: 'scroll', dx: 0, dy: -3 }]);
  await expect(() => page.keyboard.press('Shift+A'), [
    key('ShiftLeft', true), key('KeyA', true), key('KeyA', false), key('ShiftLeft', false),
  ]);
  await expect(() => page.keyboard.press('Tab'), [key('Tab', true), key('Tab', false)]);
  await expect(() => page.keyboard.insertText('日本'), [{ type: 'text', text: '日本' }]);
  await expect(async () => {
    await page.getByRole('button', { name: 'Paste text…' }).click();
    await page.locator('#paste-text').fill('pä\nste');
    await page.locator('dialog[open]').getByRole('button', { name: 'Paste' }).click();
  }, [{ type: 'release_all' }, { type: 'paste', text: 'pä\nste' }]);
  await expect(() => page.keyboard.press('Enter'), [key('Enter', true), key('Enter', false)]);
});

test('too long a paste is not sent, and says why', async (t) => {
  const { page } = await openViewer(t);
  await enter(page);
  await page.getByRole('button', { name: 'Paste text…' }).click();
  await page.locator('#paste-text').fill('é'.repeat(2049));
  await page.getByText('4098 bytes: 2 too many.').waitFor();
  assert.ok(await page.locator('dialog[open] .primary').isDisabled());
});

test('keys are let go when the keyboard leaves, and Ctrl+Alt+M leaves', async (t) => {
  const viewer = await openViewer(t);
  const { page } = viewer;
  await enter(page);
  const messages = await sentBy(viewer, 4, async () => {
    await page.keyboard.down('KeyX');
    await page.keyboard.press('Control+Alt+KeyM');
  });
  assert.deepEqual(messages[0], key('KeyX', true));
  assert.deepEqual(messages.at(-1), { type: 'release_all' });
  assert.equal(await page.evaluate(() => document.activeElement?.textContent), 'Paste text…');
});

test('the guest’s cursor is shown', async (t) => {
  const { guest, page } = await openViewer(t);
  await enter(page);
  const cursor = () => page.evaluate(() => document.querySelector('anteroom-player').shadowRoot.querySelector('video').style.cursor);
  const waitFor = (text) => page.waitForFunction((wanted) => document.querySelector('anteroom-player').shadowRoot.querySelector('video').style.cursor.includes(wanted), text);
  await guest.sendCursor({ type: 'cursor', width: 1, height: 1, hotX: 0, hotY: 0, pngBase64: 'iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==' });
  await waitFor('data:image/png');
  assert.match(await cursor(), /^url\("data:image\/png;base64,.+"\) 0 0, default$/);
  await guest.sendCursor({ type: 'cursor_hidden' });
  await waitFor('none');
});

test('a broken connection comes back by itself', async (t) => {
  const viewer = await openViewer(t);
  const { server, guest, page } = viewer;
  await enter(page);
  const before = server.offers.length;
  const said = await textsOf(page, '.connection');
  await guest.drop();
  await page.waitForFunction((texts) => texts.includes('Reconnecting') && texts.at(-1).startsWith('Connected'), said);
  assert.ok(server.offers.length > before);
  await page.waitForFunction(() => document.querySelector('anteroom-player').shadowRoot.querySelector('video').videoWidth > 0);
  const messages = await sentBy(viewer, 4, () => page.locator('anteroom-player').click());
  assert.deepEqual(messages.filter(({ type }) => type === 'pointer_button'), [
    { type: 'pointer_button', button: 'left', pressed: true }, { type: 'pointer_button', button: 'left', pressed: false },
  ]);
});

test('it is not called connected before input gets through', async (t) => {
  const { page } = await openViewer(t);
  await page.addInitScript(() => {
    const { get: readyState } = Object.getOwnPropertyDescriptor(RTCDataChannel.prototype, 'readyState');
    let held = true;
    window.RTCPeerConnection = class extends RTCPeerConnection {
      createDataChannel(...about) {
        const channel = super.createDataChannel(...about);
        if (about[0] !== 'input') return channel;
        Object.defineProperty(channel, 'readyState', { get: () => held ? 'connecting' : readyState.call(channel) });
        const opened = new Promise((resolve) => channel.addEventListener('open', (event) => {
          if (held) event.stopImmediatePropagation();
          resolve();
        }));
        window.letInputThrough = () => opened.then(() => {
          held = false;
          channel.dispatchEvent(new Event('open'));
        });
        return channel;
      }
    };
  });
  await page.reload();
  const player = () => page.evaluate(() => {
    const { hasPicture, connectionState } = document.querySelector('anteroom-player');
    return { hasPicture, connectionState };
  });
  await page.waitForFunction(() => document.querySelector('anteroom-player')?.hasPicture);
  assert.deepEqual(await player(), { hasPicture: true, connectionState: 'connecting' });
  await page.evaluate(() => window.letInputThrough());
  assert.deepEqual(await player(), { hasPicture: true, connectionState: 'connected' });
});

test('a reload goes on where it was; another browser with the same link may not', async (t) => {
  const { server, page, context, newContext } = await openViewer(t);
  await enter(page);
  await page.reload();
  await connected(page);
  const again = await context.newPage();
  await again.goto(server.link);
  await again.locator('[data-action=continue]').waitFor();
  assert.equal(new URL(again.url()).hash, '');
  const stranger = await (await newContext()).newPage();
  await stranger.goto(server.link);
  await stranger.getByRole('heading', { name: 'This link has already been used' }).waitFor();
});

test('changes of the session are followed, also after the server was away', async (t) => {
  const { server, page } = await openViewer(t);
  await enter(page);
  server.cut();
  server.set({ state: 'capturing' });
  await page.getByText('Saving your sign-in…').waitFor();
  server.set({ state: 'ended', reason: { code: 'completed', message: 'signed in' }, teardown: 'tearing_down' });
  await page.getByText('The sign-in desktop is being destroyed…').waitFor();
  server.set({ teardown: 'torn_down', leftovers: [] });
  await page.getByText('a check found nothing left of it').waitFor();
});

test('cancelling asks first', async (t) => {
  const { server, page } = await openViewer(t);
  await enter(page);
  await page.getByRole('button', { name: 'Cancel sign-in' }).click();
  await page.getByRole('button', { name: 'Continue signing in' }).click();
  assert.equal(server.cancelled(), 0);
  await page.getByRole('button', { name: 'Cancel sign-in' }).click();
  const cancel = page.waitForResponse((response) => response.url().endsWith('/cancel'));
  await page.getByRole('button', { name: 'Cancel the sign-in' }).click();
  await cancel;
  assert.equal(server.cancelled(), 1);
  server.set({ state: 'ended', reason: { code: 'cancelled', message: 'cancelled by the end user in the viewer', detail: { by: { kind: 'end_user', generation: 1 } } }, teardown: 'torn_down', leftovers: [] });
  await page.getByRole('heading', { name: 'You cancelled the sign-in' }).waitFor();
});
