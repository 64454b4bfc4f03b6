// How a browser comes from a viewer's link to the desktop.

import { pause } from './events.mjs';

const JOIN_SECONDS = 60;

/**
 * Opens the link in `page`, and waits until `isShown` says that the desktop is there; gives the milliseconds
 * that it took. `whatIsKnown` ends the error's sentence.
 */
export async function join(page, link, isShown, whatIsKnown = async () => '') {
  const begun = Date.now();
  await page.goto(link);
  const button = page.locator('[data-action=continue]');
  while (!await isShown()) {
    if (await button.isVisible()) await button.click({ timeout: 10_000 });
    if (await hasEnded(page)) throw new Error('the session ended');
    if (Date.now() - begun > JOIN_SECONDS * 1000) throw new Error(`no picture within ${JOIN_SECONDS} s${await whatIsKnown()}`);
    await pause(20);
  }
  return Date.now() - begun;
}

/** Whether the viewer shows that the session ended, or cannot be shown. */
export const hasEnded = (page) => page.locator('.ended, .problem').first().isVisible();
