#!/usr/bin/env node
// Plays the end user of the demonstration: opens a viewer link in headless Chromium, watches the
// decoded video, signs in through the picture with mouse and keyboard, waits for the end. It knows
// of the guest only what an end user sees: pixels. What happens is printed on stdout, as JSON lines.

import { mkdirSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';

import { chromium } from 'playwright-core';

import { layout } from '../oidc-provider/sign-in-page.mjs';
import { chromiumArguments } from './chromium.mjs';
import { say } from './events.mjs';
import { findVideo } from './video.mjs';
import { watchPicture } from './watch.mjs';

const { values: options } = parseArgs({
  options: {
    // With - it is read from stdin, once the browser is there: whoever measures a start leaves that out.
    'viewer-url': { type: 'string' },
    email: { type: 'string', default: 'ada@example.com' },
    password: { type: 'string', default: 'correct horse' },
    'wrong-password-first': { type: 'boolean', default: false },
    // Closes the tab when the sign-in page is seen, and opens the viewer in a new one.
    'close-tab-once': { type: 'boolean', default: false },
    // Loads the desktop's page again when the viewer asks for it: it leads to a host that must be allowed first.
    'reload-when-asked': { type: 'boolean', default: false },
    // How long to leave the desktop alone before signing in, in seconds.
    'idle-seconds': { type: 'string', default: '0' },
    // A name to take for this machine's, which no resolver knows.
    'name-of-this-machine': { type: 'string' },
    executable: { type: 'string', default: '/usr/bin/chromium' },
    screenshots: { type: 'string' },
    // How long to wait for the sign-in page, in seconds: an emulated machine boots meanwhile.
    timeout: { type: 'string', default: '300' },
  },
});
if (!options['viewer-url']) {
  process.stderr.write('usage: node end-user.mjs --viewer-url URL|- [--email E] [--password P] [--wrong-password-first] [--close-tab-once] [--reload-when-asked] [--idle-seconds N] [--name-of-this-machine NAME] [--executable PATH] [--screenshots DIR] [--timeout SECONDS]\n');
  process.exit(2);
}

const KEY_DELAY_MS = 120;
const LOOK_EVERY_MS = 200;
/** No frame for so long: the desktop rests. */
const REST_MS = 2000;
const PAGE_SECONDS = Number(options.timeout);
/** How long an answer of the guest may take. */
const ANSWER_SECONDS = 60;
/** Dark pixels of the thinnest text: what shows that a character is there. */
const INK_PER_CHARACTER = 8;
const WRONG_PASSWORD = 'not this one';

class Failure extends Error {}

const name = options['name-of-this-machine'];
const browser = await chromium.launch({
  executablePath: options.executable,
  args: [...chromiumArguments(), ...(name ? [`--host-resolver-rules=MAP ${name} 127.0.0.1`] : [])],
});
// The bar takes 48 pixels and its line one: the picture is shown pixel by pixel.
const context = await browser.newContext({ viewport: { width: 1280, height: 769 }, reducedMotion: 'reduce' });

const saw = new Set();
await context.exposeFunction('pictureSaw', (name, at) => {
  say(name, { at_ms: at });
  saw.add(name);
});
await context.addInitScript(findVideo);
await context.addInitScript(watchPicture, { band: layout.band.colour, tolerance: 24 });

let page = await newTab();
const viewerUrl = options['viewer-url'] === '-' ? await givenLater() : options['viewer-url'];

let code = 0;
try {
  await enter();
  if (options['reload-when-asked']) await reloadWhenAsked();
  await until('the sign-in page', () => saw.has('ready'), PAGE_SECONDS);
  if (options['close-tab-once']) await closeTabAndComeBack();
  await reportRoute();
  if (Number(options['idle-seconds']) > 0) await idle(Number(options['idle-seconds']));
  await signIn();
  await waitForEnd();
} catch (error) {
  code = 1;
  const why = String(error.message).split('\n')[0];
  // Distinguishes a picture that did not come from one that was not recognised.
  const received = await page.evaluate(() => window.pictureWatch.received()).catch(() => undefined);
  say('failed', { why, received, screenshot: await picture('failed') });
} finally {
  await browser.close();
}
process.exit(code);

async function givenLater() {
  // What a browser does once in its life is done.
  await page.goto('data:text/html,<video></video>');
  say('waits');
  for await (const line of createInterface({ input: process.stdin })) return line;
  throw new Failure('no viewer link was given');
}

async function newTab() {
  const tab = await context.newPage();
  tab.on('pageerror', (error) => process.stderr.write(`viewer: ${error.stack}\n`));
  tab.on('console', (message) => message.type() === 'error' && process.stderr.write(`viewer: ${message.text()}\n`));
  return tab;
}

/** The link is used up by then: a browser that has been there comes in by its cookie. */
async function closeTabAndComeBack() {
  const address = page.url();
  await page.close();
  saw.clear();
  page = await newTab();
  await page.goto(address);
  const button = page.locator('[data-action=continue]');
  await until('the viewer to come back', async () => saw.has('ready') || button.isVisible());
  if (await button.isVisible()) await button.click({ timeout: 10_000 });
  await until('the picture to come back', () => saw.has('ready'));
  say('came_back');
}

/** Reads the notices beside the picture, as an end user does, and follows them. */
async function reloadWhenAsked() {
  const notified = async (event, text) => {
    const notice = page.locator('[role=alert]', { hasText: text });
    await until(`the notice "${text}"`, () => notice.isVisible(), PAGE_SECONDS);
    await picture(event);
    say(event, { notice: await notice.textContent() });
  };
  await until('a picture', () => saw.has('first_frame'), PAGE_SECONDS);
  await notified('notified', 'may not reach yet');
  // The browser says so too, in its page.
  await rest();
  await picture('refused_page');
  say('asks');
  await notified('asked_to_reload', 'reload the page');
  await page.locator('anteroom-player').focus();
  await page.keyboard.press('F5', { delay: KEY_DELAY_MS });
}

/** Where the picture comes from, and how the right to see it is kept: what the browser says. */
async function reportRoute() {
  const media = await page.evaluate(() => window.pictureWatch.mediaFrom());
  const cookies = await context.cookies(page.url());
  const { value: _secret, ...cookie } = cookies.find(({ name: its }) => its.startsWith('anteroom_viewer_')) ?? {};
  say('way', { media, cookie });
}

/** Takes the focus from the page's fields, and counts the frames that come all the same. */
async function idle(seconds) {
  const { email } = await fields();
  await click({ left: 20, top: email.top + 200, width: 40, height: 40 });
  const frames = await rest();
  say('idle_begins');
  await pause(seconds * 1000);
  say('idle_ends', { frames: await countFrames() - frames });
}

/** Waits until nothing moves in the desktop; how many frames there were until then. */
async function rest() {
  let frames = -1;
  await until('the desktop to rest', async () => {
    const before = frames;
    frames = await countFrames();
    await pause(REST_MS);
    return before === frames && frames === await countFrames();
  });
  return frames;
}

function countFrames() {
  return page.evaluate(() => window.pictureWatch.frames);
}

async function enter() {
  await page.goto(viewerUrl, { waitUntil: 'commit' });
  await page.locator('[data-action=continue], .problem').first().waitFor({ timeout: ANSWER_SECONDS * 1000 });
  await picture('intro');
  await page.locator('[data-action=continue]').click({ timeout: 10_000 });
  say('continued');
}

async function signIn() {
  const page1 = await fields();
  await picture('ready');
  await focus(page1.email);
  await type(page1.email, options.email, 'the e-mail');
  if (options['wrong-password-first']) {
    await page.keyboard.press('Tab', { delay: KEY_DELAY_MS });
    await type(page1.password, WRONG_PASSWORD, 'the wrong password');
    await page.keyboard.press('Enter', { delay: KEY_DELAY_MS });
    await until('the error of the page', () => share(page1.problem, layout.problem.colour).then((part) => part > 0.5));
    say('refused');
    await picture('refused');
    await focus((await fields()).password);
  } else {
    await page.keyboard.press('Tab', { delay: KEY_DELAY_MS });
  }
  await type(page1.password, options.password, 'the password');
  await picture('typed');
  await page.keyboard.press('Enter', { delay: KEY_DELAY_MS });
  say('typed');
}

/** Waits until the form is drawn; gives its boxes in guest pixels. */
async function fields() {
  let boxes;
  await until('the form', async () => {
    const band = await page.evaluate(() => window.pictureWatch.findBand());
    if (!band) return false;
    const box = ({ top, width, height }) => ({
      left: Math.round(band.width / 2 - width / 2), top: band.bottom + top, width, height,
    });
    boxes = Object.fromEntries(['problem', 'email', 'password', 'submit'].map((name) => [name, box(layout[name])]));
    return await share(boxes.submit, layout.band.colour) > 0.5;
  });
  return boxes;
}

/** Types as a hand does, and waits until the characters are seen. */
async function type(box, text, what) {
  const inside = inner(box);
  const before = await ink(inside);
  await page.keyboard.type(text, { delay: KEY_DELAY_MS });
  const enough = before + INK_PER_CHARACTER * [...text.replaceAll(' ', '')].length;
  let dark = before;
  await until(`${what} to be seen in its field`, async () => {
    dark = await ink(inside);
    return dark >= enough;
  }, ANSWER_SECONDS, () => `${dark} dark pixels there, ${before} before, ${enough} wanted`);
}

/** Clicks a field and, as an end user does, types only when it shows its focus. */
async function focus(box) {
  await click(box);
  const ring = { left: box.left - 2, top: box.top, width: 2, height: box.height };
  await until('the field to show its focus', async () => await ink(ring) >= box.height);
}

async function click(box) {
  const centre = { x: box.left + box.width / 2, y: box.top + box.height / 2 };
  const { x, y } = await page.evaluate((point) => window.desktopVideo.toClient(point), centre);
  await page.mouse.move(x - 30, y - 5);
  await page.mouse.move(x, y);
  await page.mouse.down();
  await page.mouse.up();
}

async function waitForEnd() {
  // A quick session ends before its page is seen to go.
  const limit = Date.now() + ANSWER_SECONDS * 1000;
  while (!(await ended()) && await page.evaluate(() => window.pictureWatch.bandVisible)) {
    if (Date.now() > limit) throw new Failure(`the sign-in page did not go within ${ANSWER_SECONDS} s`);
    await pause();
  }
  say('left_page');
  const end = await untilEnded();
  await picture('ended');
  if (!end.ok) throw new Failure(`the session ended without a credential: ${end.title}: ${end.text}`);
  say('ended', end);
}

async function untilEnded() {
  const limit = Date.now() + PAGE_SECONDS * 1000;
  while (Date.now() < limit) {
    const end = await ended();
    if (end) return end;
    await pause();
  }
  throw new Failure(`the end of the session did not come within ${PAGE_SECONDS} s`);
}

/** What the last screen says, once it is there. */
function ended() {
  return page.evaluate(() => {
    const card = document.querySelector('.ended, .problem');
    if (!card) return undefined;
    const text = (selector) => card.querySelector(selector)?.textContent ?? '';
    return { ok: card.querySelector('.seal.good') !== null, title: text('h1'), text: text('.lead') };
  });
}

/** Looks until `check` holds; a session that ends meanwhile is a failure, with its reason. `saw` says
 *  what was there instead. */
async function until(what, check, seconds = ANSWER_SECONDS, saw = () => '') {
  const limit = Date.now() + seconds * 1000;
  while (!(await check())) {
    const end = await ended();
    if (end) throw new Failure(`waiting for ${what}, the session ended: ${end.title}: ${end.text}`);
    if (Date.now() > limit) {
      const seen = saw();
      throw new Failure(`${what} did not come within ${seconds} s${seen && ` (${seen})`}`);
    }
    await pause();
  }
}

function pause(ms = LOOK_EVERY_MS) {
  return new Promise((resolve) => { setTimeout(resolve, ms); });
}

function share(box, colour) {
  return page.evaluate(([part, wanted]) => window.pictureWatch.share(part, wanted), [box, colour]);
}

function ink(box) {
  return page.evaluate((part) => window.pictureWatch.ink(part), box);
}

/** Without the border, which changes with the focus. */
function inner({ left, top, width, height }) {
  return { left: left + 5, top: top + 5, width: width - 10, height: height - 10 };
}

/** Saves a picture where asked; a failure's always. */
async function picture(name) {
  const folder = options.screenshots ?? (name === 'failed' ? tmpdir() : undefined);
  if (!folder) return undefined;
  const path = join(folder, `end-user-${name}.png`);
  try {
    mkdirSync(folder, { recursive: true });
    await page.screenshot({ path, timeout: 10_000 });
    return path;
  } catch (error) {
    process.stderr.write(`no screenshot ${path}: ${error.message}\n`);
    return undefined;
  }
}
