#!/usr/bin/env node
// Connects noVNC, as its makers publish it, to a session's desktop in headless Chromium, with the right
// that a viewer link gives, and prints what it sees, as one JSON line.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { chromium } from 'playwright-core';

import { chromiumArguments } from './chromium.mjs';

const { values: options } = parseArgs({
  options: {
    'viewer-url': { type: 'string' },
    session: { type: 'string' },
    executable: { type: 'string', default: '/usr/bin/chromium' },
  },
});

const package_ = fileURLToPath(new URL('../node_modules/@novnc/novnc/', import.meta.url));
const browser = await chromium.launch({ executablePath: options.executable, args: chromiumArguments() });
let code = 1;
let page;
try {
  // Our own pages take no foreign scripts; a developer's page that embeds noVNC has rules of its own.
  const context = await browser.newContext({ bypassCSP: true });
  page = await context.newPage();
  await page.route('**/novnc/**', (route) => {
    const path = new URL(route.request().url()).pathname.replace('/novnc/', '');
    return route.fulfill({ contentType: 'text/javascript', body: readFileSync(join(package_, path)) });
  });
  await page.goto(options['viewer-url']);
  await page.locator('[data-action=continue]').waitFor({ timeout: 60_000 });
  const seen = await page.evaluate(async (session) => {
    const { default: RFB } = await import('/novnc/core/rfb.js');
    const place = document.createElement('div');
    place.style.cssText = 'position:fixed;inset:0;width:1280px;height:720px';
    document.body.append(place);
    const rfb = new RFB(place, `ws://${location.host}/api/auth/session/${session}/vnc`);
    const events = await new Promise((done) => {
      rfb.addEventListener('connect', () => done('connected'));
      rfb.addEventListener('disconnect', ({ detail }) => done(`disconnected, clean: ${detail.clean}`));
      rfb.addEventListener('securityfailure', ({ detail }) => done(`refused: ${detail.reason}`));
    });
    const canvas = place.querySelector('canvas');
    const colours = () => {
      const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
      const found = new Set();
      for (let at = 0; at < data.length; at += 4 * 97) found.add((data[at] << 16) | (data[at + 1] << 8) | data[at + 2]);
      return found.size;
    };
    const until = Date.now() + 60_000;
    while (events === 'connected' && colours() < 3 && Date.now() < until) await new Promise((done) => setTimeout(done, 200));
    return { events, width: canvas?.width, height: canvas?.height, colours: canvas ? colours() : 0 };
  }, options.session);
  process.stdout.write(`${JSON.stringify(seen)}\n`);
  code = seen.events === 'connected' && seen.width === 1280 && seen.height === 720 && seen.colours >= 3 ? 0 : 1;
} catch (error) {
  // What the page says instead is the reason.
  const shown = await page?.locator('body').innerText({ timeout: 5_000 }).catch(String);
  process.stdout.write(`${JSON.stringify({ error: String(error.message).split('\n')[0], page: shown })}\n`);
} finally {
  await browser.close();
}
process.exit(code);
