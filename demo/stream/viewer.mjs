#!/usr/bin/env node
// Measures the stream as an end user meets it: keys, text that scrolls, a part that moves, and rest, through
// the viewer; for the floor only keys, in this browser itself. What it begins and what it measured are lines
// of JSON on stdout.

import { parseArgs } from 'node:util';

import { chromium } from 'playwright-core';

import { chromiumArguments } from '../end-user/chromium.mjs';
import { pause, say } from '../end-user/events.mjs';
import { join } from '../end-user/join.mjs';
import { findVideo } from '../end-user/video.mjs';
import { BLOCK } from './page.mjs';

const { values: options } = parseArgs({
  options: {
    'viewer-url': { type: 'string' },
    // The page itself, on 127.0.0.1.
    'page-url': { type: 'string' },
    seconds: { type: 'string', default: '10' },
    keys: { type: 'string', default: '100' },
    executable: { type: 'string', default: '/usr/bin/chromium' },
    screenshot: { type: 'string' },
  },
});
if (!options['viewer-url'] === !options['page-url']) {
  process.stderr.write('usage: node viewer.mjs --viewer-url URL | --page-url URL [--seconds N] [--keys N] [--executable PATH] [--screenshot FILE]\n');
  process.exit(2);
}

const KEY_EVERY_MS = 100;
/** A key that shows nothing for so long is lost. */
const LOST_MS = 2000;
const WHEEL_EVERY_MS = 16;
const SETTLE_MS = 1500;
/** Guest pixels: where the text is. */
const TEXT = { x: 300, y: 300 };

process.on('SIGTERM', () => process.exit(143));
let browser;
try {
  browser = await chromium.launch({ executablePath: options.executable, args: chromiumArguments() });
  await (options['viewer-url'] ? throughViewer(options['viewer-url']) : inThisBrowser(options['page-url']));
  say('done');
} catch (error) {
  say('failed', { why: String(error.message).split('\n')[0] });
  process.exitCode = 1;
} finally {
  await browser?.close();
}

async function throughViewer(address) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 769 }, reducedMotion: 'reduce' });
  await context.addInitScript(findVideo);
  await context.addInitScript(watch, { BLOCK, LOST_MS });
  await context.addInitScript(countBytes);
  const page = await context.newPage();
  page.on('pageerror', (error) => process.stderr.write(`viewer: ${error.stack}\n`));
  const took = await join(page, address, () => page.evaluate(() => window.stream.isShown()));
  say('joined', { took_ms: took });
  await pause(SETTLE_MS);
  const toClient = (point) => page.evaluate((at) => window.desktopVideo.toClient(at), point);
  const { x, y } = await toClient({ x: 300, y: 640 });
  await page.mouse.click(x, y);
  await pause(SETTLE_MS);
  await measure(page, toClient);
  if (options.screenshot) await page.screenshot({ path: options.screenshot });
}

async function inThisBrowser(address) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 720 }, ignoreHTTPSErrors: true });
  await context.addInitScript(watch, { BLOCK, LOST_MS });
  const page = await context.newPage();
  await page.goto(address);
  await page.evaluate(() => window.stream.useBlockItself());
  await typing(page);
}

async function measure(page, toClient) {
  await during(page, 'idle', () => pause(Number(options.seconds) * 1000));
  await page.keyboard.press('a');
  await pause(SETTLE_MS);
  await page.evaluate(() => window.stream.remember());
  await page.keyboard.press('b');
  await pause(SETTLE_MS);
  if (!await page.evaluate(() => window.stream.find())) throw new Error('no part of the picture flipped with a key');
  await typing(page);
  const { x, y } = await toClient(TEXT);
  await page.mouse.move(x, y);
  await pause(SETTLE_MS);
  await during(page, 'scroll', async () => {
    const begun = performance.now();
    while (performance.now() - begun < Number(options.seconds) * 1000) {
      await page.mouse.wheel(0, 40);
      await pause(WHEEL_EVERY_MS);
    }
  });
  await pause(SETTLE_MS);
  await page.keyboard.press('Escape');
  await pause(SETTLE_MS);
  await during(page, 'animation', () => pause(Number(options.seconds) * 1000));
  await page.keyboard.press('Escape');
}

async function typing(page) {
  const keys = Number(options.keys);
  const delays = [];
  await during(page, 'typing', async () => {
    for (let at = 0; at < keys; at += 1) {
      const begun = performance.now();
      await page.evaluate(() => window.stream.arm());
      // Not in step with the display, or each would wait as long for its frame.
      await pause(Math.random() * KEY_EVERY_MS);
      await page.keyboard.press('abcdefghij'[at % 10]);
      delays.push(await page.evaluate(() => window.stream.seen));
      await pause(Math.max(0, 2 * KEY_EVERY_MS - (performance.now() - begun)));
    }
  }, () => ({ delays }));
}

async function during(page, what, work, more = () => ({})) {
  const counted = () => page.evaluate(() => window.stream.counted?.());
  const before = await counted();
  say('begins', { what });
  const begun = performance.now();
  await work();
  const seconds = (performance.now() - begun) / 1000;
  say('ends', { what });
  const after = await counted();
  const rates = before && {
    kb_per_s: (after.bytes - before.bytes) / 1000 / seconds,
    frames_per_s: (after.frames - before.frames) / seconds,
  };
  say('measured', { what, seconds, ...rates, ...more() });
}

/** Runs in the page; it may use nothing from outside. */
function watch({ BLOCK, LOST_MS }) {
  const probe = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
  let shown;
  let at;
  let remembered;
  let pressed;

  const size = () => ({ width: shown.videoWidth ?? shown.width, height: shown.videoHeight ?? shown.height });
  function picture() {
    const { width, height } = size();
    const whole = new OffscreenCanvas(width, height).getContext('2d');
    whole.drawImage(shown, 0, 0);
    return whole.getImageData(0, 0, width, height);
  }
  const isDark = () => {
    probe.drawImage(shown, at.x, at.y, 1, 1, 0, 0, 1, 1);
    return probe.getImageData(0, 0, 1, 1).data[1] < 128;
  };

  addEventListener('keydown', (event) => { pressed ??= event.timeStamp; }, { capture: true });

  window.stream = {
    isShown: () => (shown?.videoWidth ?? 0) > 0,
    useBlockItself() {
      shown = document.getElementById('mark');
      at = { x: BLOCK / 2, y: BLOCK / 2 };
    },
    remember() { remembered = picture(); },
    /** Looks for a square that flipped since; the middle of it is what is watched. */
    find() {
      const now = picture();
      const flipped = (x, y) => {
        const pixel = (y * now.width + x) * 4 + 1;
        return Math.abs(now.data[pixel] - remembered.data[pixel]) > 180;
      };
      const reach = BLOCK / 2 - 4;
      for (let y = reach; y < now.height - reach; y += 1) {
        for (let x = reach; x < now.width - reach; x += 1) {
          if (flipped(x, y) && flipped(x - reach, y - reach) && flipped(x + reach, y + reach)
            && flipped(x - reach, y + reach) && flipped(x + reach, y - reach)) {
            at = { x, y };
            return at;
          }
        }
      }
      return undefined;
    },
    /** `seen` is then the milliseconds from the next key to the picture that shows it; undefined where none does. */
    arm() {
      let before = isDark();
      const armed = performance.now();
      pressed = undefined;
      window.stream.seen = new Promise((resolve) => {
        function look() {
          const now = performance.now();
          const dark = isDark();
          // What flips before the key is pressed is late, of one before.
          if (pressed === undefined) before = dark;
          if (dark !== before) resolve(performance.now() - pressed);
          else if (now - (pressed ?? armed) > LOST_MS) resolve(undefined);
          else requestAnimationFrame(look);
        }
        requestAnimationFrame(look);
      });
    },
  };
  void window.desktopVideo?.found.then((element) => { shown = element; });
}

/** Runs in the page; it may use nothing from outside. */
function countBytes() {
  const peers = [];
  let frames = 0;
  window.RTCPeerConnection = class extends window.RTCPeerConnection {
    constructor(...given) {
      super(...given);
      peers.push(this);
    }
  };
  void window.desktopVideo.found.then((video) => {
    const onFrame = () => {
      frames += 1;
      video.requestVideoFrameCallback(onFrame);
    };
    video.requestVideoFrameCallback(onFrame);
  });
  window.stream.counted = async () => {
    let bytes = 0;
    for (const peer of peers) {
      for (const entry of (await peer.getStats()).values()) {
        if (entry.type === 'transport') bytes += entry.bytesReceived ?? 0;
      }
    }
    return { bytes, frames };
  };
}
