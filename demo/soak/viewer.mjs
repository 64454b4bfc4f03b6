#!/usr/bin/env node
// Watches the soak page through the viewer for some minutes in some visits, typing and scrolling, and
// reads from each decoded picture which one of the guest it is. What it saw is printed on stdout.

import { parseArgs } from 'node:util';

import { chromium } from 'playwright-core';

import { chromiumArguments } from '../end-user/chromium.mjs';
import { pause, say } from '../end-user/events.mjs';
import { hasEnded, join } from '../end-user/join.mjs';
import { findVideo } from '../end-user/video.mjs';
import { BITS, CELL, CELLS, PREAMBLE } from './code.mjs';

const { values: options } = parseArgs({
  options: {
    'viewer-url': { type: 'string' },
    minutes: { type: 'string', default: '30' },
    visits: { type: 'string', default: '4' },
    executable: { type: 'string', default: '/usr/bin/chromium' },
    screenshot: { type: 'string' },
  },
});
if (!options['viewer-url']) {
  process.stderr.write('usage: node viewer.mjs --viewer-url URL [--minutes N] [--visits N] [--executable PATH] [--screenshot FILE]\n');
  process.exit(2);
}

const KEY_DELAY_MS = 120;
const AWAY_MS = 10_000;
const REST_MS = 4000;
const SENTENCE = 'all work and no play makes a dull day. ';
/** A point of the textarea and one of the text, in guest pixels. */
const BOX = { x: 300, y: 640 };
const TEXT = { x: 300, y: 300 };

const browser = await chromium.launch({ executablePath: options.executable, args: chromiumArguments() });
const context = await browser.newContext({ viewport: { width: 1280, height: 769 }, reducedMotion: 'reduce' });
await context.addInitScript(findVideo);
await context.addInitScript(readPictures, { BITS, CELL, CELLS, PREAMBLE });
process.on('SIGTERM', () => process.exit(143));

let typed = 0;
let address = options['viewer-url'];
const visits = Number(options.visits);
const visitMs = (Number(options.minutes) * 60_000) / visits;
try {
  for (let visit = 1; visit <= visits; visit += 1) {
    address = await watch(visit);
    if (visit < visits) await pause(AWAY_MS);
  }
  say('done', { typed });
} catch (error) {
  say('failed', { why: String(error.message).split('\n')[0] });
  if (options.screenshot) await context.pages().at(-1)?.screenshot({ path: options.screenshot });
  process.exitCode = 1;
} finally {
  await browser.close();
}

async function watch(visit) {
  const page = await context.newPage();
  page.on('pageerror', (error) => process.stderr.write(`viewer: ${error.stack}\n`));
  const took = await join(
    page,
    address,
    () => page.evaluate(() => window.soak.pictures > 0),
    async () => ` of visit ${visit}: ${JSON.stringify(await page.evaluate(() => window.soak.take()))}`,
  );
  const end = Date.now() + visitMs;
  say('joined', { visit, took_ms: took });
  let round = 0;
  while (Date.now() < end) {
    const box = await page.evaluate((point) => window.desktopVideo.toClient(point), BOX);
    await page.mouse.move(box.x, box.y);
    await page.mouse.down();
    await page.mouse.up();
    await pause(1000);
    await page.keyboard.type(SENTENCE, { delay: KEY_DELAY_MS });
    typed += SENTENCE.length;
    const text = await page.evaluate((point) => window.desktopVideo.toClient(point), TEXT);
    await page.mouse.move(text.x, text.y);
    for (let turn = 0; turn < 20; turn += 1) {
      await page.mouse.wheel(0, round % 2 ? -120 : 120);
      await pause(100);
    }
    round += 1;
    await pause(REST_MS);
    if (await hasEnded(page)) throw new Error('the session ended');
    const seen = await page.evaluate(() => window.soak.take());
    say('watched', { visit, ...seen });
  }
  if (visit === 1 && options.screenshot) await page.screenshot({ path: options.screenshot });
  const left = page.url();
  say('left', { visit, ...await page.evaluate(() => window.soak.take(true)) });
  await page.close();
  return left;
}

/** Runs in the page; it may use nothing from outside. */
function readPictures({ BITS, CELL, CELLS, PREAMBLE }) {
  const GAP_MS = 500;
  const cells = new OffscreenCanvas(CELLS, 1).getContext('2d', { willReadFrequently: true });
  // The middle of each cell: a mean would have its neighbours in it.
  cells.imageSmoothingEnabled = false;
  const soak = { pictures: 0 };
  let video;
  let strip;
  let unreadable = 0;
  let gaps = [];
  /** The last new picture: its number, and when it was shown. */
  let last;

  /** What the cells say, each dark or not; undefined where they are no strip. */
  function read(bits) {
    const counted = bits.slice(PREAMBLE.length, -1);
    const ones = counted.reduce((sum, bit) => sum + bit, 0);
    const whole = PREAMBLE.every((bit, at) => bits[at] === bit) && (ones + 1) % 2 === bits.at(-1);
    return whole ? counted.reduce((sum, bit) => sum * 2 + bit, 0) : undefined;
  }

  const each = (dark) => Array.from({ length: CELLS }, (_, at) => (dark(at) ? 1 : 0));
  const middle = (values) => values[Math.floor(values.length / 2)];

  /** Where the strip is, below whatever bars the guest's browser has; by the middles of its cells. */
  function findStrip() {
    const [width, height] = [CELLS * CELL + 2 * CELL, 240];
    const part = new OffscreenCanvas(width, height).getContext('2d');
    part.drawImage(video, 0, 0, width, height, 0, 0, width, height);
    const { data } = part.getImageData(0, 0, width, height);
    const isStrip = (x, y) => read(each((at) => data[(y * width + x + at * CELL) * 4] < 128)) > 0;
    const across = (y) => Array.from({ length: 2 * CELL }, (_, x) => x).filter((x) => isStrip(x, y));
    const rows = Array.from({ length: height }, (_, y) => y).filter((y) => across(y).length > CELL / 2);
    if (rows.length < CELL / 2) return undefined;
    const y = middle(rows);
    return { left: Math.max(0, middle(across(y)) - CELL / 2), top: Math.max(0, y - CELL / 2) };
  }

  function number() {
    strip ??= findStrip();
    if (!strip) return undefined;
    cells.drawImage(video, strip.left, strip.top, CELLS * CELL, CELL, 0, 0, CELLS, 1);
    const { data } = cells.getImageData(0, 0, CELLS, 1);
    return read(each((at) => data[at * 4] < 128));
  }

  function onFrame(now) {
    video.requestVideoFrameCallback(onFrame);
    const shown = number();
    if (shown === undefined) {
      unreadable += 1;
    } else if (shown !== last?.shown) {
      soak.pictures += 1;
      if (last && now - last.now > GAP_MS) gaps.push({ ms: Math.round(now - last.now), after: last.shown, until: shown });
      last = { shown, now };
    }
  }

  /** What was seen since the last time; at the end of a visit, how long nothing came is a gap too. */
  soak.take = (leaving = false) => {
    const silent = last ? Math.round(performance.now() - last.now) : 0;
    if (leaving && silent > GAP_MS) gaps.push({ ms: silent, after: last.shown, until: last.shown });
    const seen = { pictures: soak.pictures, unreadable, strip, gaps, shown: last?.shown, silent_ms: silent };
    gaps = [];
    return seen;
  };

  void window.desktopVideo.found.then((element) => {
    video = element;
    video.requestVideoFrameCallback(onFrame);
  });
  window.soak = soak;
}
