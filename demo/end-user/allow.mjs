#!/usr/bin/env node
// Plays an end user who has only to press Enter: opens a viewer link in headless Chromium, and presses
// Enter in the desktop's picture until the sign-in has ended. For pages whose button has the focus.
// What happens is printed on stdout, as JSON lines.

import { parseArgs } from 'node:util';

import { chromium } from 'playwright-core';

import { chromiumArguments } from './chromium.mjs';
import { say } from './events.mjs';

const { values: options } = parseArgs({
  options: {
    'viewer-url': { type: 'string' },
    executable: { type: 'string', default: '/usr/bin/chromium' },
    timeout: { type: 'string', default: '300' },
    // Presses the page's second button.
    deny: { type: 'boolean', default: false },
  },
});

const PRESS_EVERY_MS = 3000;

const browser = await chromium.launch({ executablePath: options.executable, args: chromiumArguments() });
const page = await browser.newPage({ viewport: { width: 1280, height: 800 } });
const until = Date.now() + Number(options.timeout) * 1000;
let code = 1;
try {
  await page.addInitScript(() => window.addEventListener('anteroom:state', ({ detail }) => { window.guestState = detail.state; }));
  await page.goto(options['viewer-url']);
  await page.locator('[data-action=continue]').click({ timeout: 60_000 });
  say('entered');
  // The page of the provider is there when the session says that it is the end user's turn.
  while (Date.now() < until) {
    const state = await page.evaluate(() => window.guestState);
    if (state === 'ended' || state === 'sealed' || state === 'capturing') {
      say('over', { state });
      code = 0;
      break;
    }
    if (state === 'awaiting_user') {
      await page.locator('anteroom-player').focus();
      if (options.deny) await page.keyboard.press('Tab');
      await page.keyboard.press('Enter');
    }
    await page.waitForTimeout(PRESS_EVERY_MS);
  }
} catch (error) {
  say('failed', { why: String(error.message).split('\n')[0] });
} finally {
  await browser.close();
}
process.exit(code);
