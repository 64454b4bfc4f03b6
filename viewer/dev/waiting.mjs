// What the browser tests wait with. None of it depends on how fast the machine is: a test waits for the
// thing itself, and that something did not happen is asked once something later has.

import assert from 'node:assert/strict';
import { isDeepStrictEqual } from 'node:util';

/** Far more than a busy machine needs: who waits so long waits in vain. */
export const LONGEST_MS = 60_000;
const LOOK_EVERY_MS = 20;

/** Waits until `read` gives `wanted`; otherwise the test fails by what it gave last. */
export async function becomes(read, wanted, message) {
  const limit = Date.now() + LONGEST_MS;
  let found = await read();
  while (!isDeepStrictEqual(found, wanted) && Date.now() < limit) {
    await new Promise((go) => { setTimeout(go, LOOK_EVERY_MS); });
    found = await read();
  }
  assert.deepEqual(found, wanted, message);
}

/** Every text that the element has from now on, however short it has it: an array in the page. */
export function textsOf(page, selector) {
  return page.evaluateHandle((wanted) => {
    const element = document.querySelector(wanted);
    const texts = [element.textContent];
    new MutationObserver(() => {
      if (element.textContent !== texts.at(-1)) texts.push(element.textContent);
    }).observe(element, { childList: true, characterData: true, subtree: true });
    return texts;
  }, selector);
}

let sent = 0;

/** Waits until the page has taken in all that `server` sent about the session: a name sent last has become its title. */
export async function takenIn(server, page) {
  const name = `Sent ${sent += 1}`;
  server.set({ provider: { ...server.session().provider, name } });
  await page.waitForFunction((title) => document.title === title, `${name} · Anteroom`);
}

let marks = 0;

/** Marks the guest's messages: where all that the page has sent until now has arrived. Input must be enabled. */
async function mark({ page, guest }) {
  const text = `mark ${marks += 1}`;
  await page.evaluate(async (marked) => {
    // A move of the pointer goes out with the next frame.
    for (let frames = 0; frames < 2; frames += 1) await new Promise((go) => { requestAnimationFrame(go); });
    if (!document.querySelector('anteroom-player').paste(marked)) throw new Error('the mark could not be sent');
  }, text);
  await guest.page.waitForFunction((marked) => window.fakeGuest.messages.some((message) => message.text === marked), text);
  return (await guest.messages()).findIndex((message) => message.text === text);
}

/** All that the guest has received until now. */
export async function received(viewer) {
  const end = await mark(viewer);
  return (await viewer.guest.messages()).slice(0, end);
}

/** All that the guest receives by `act`, which sends at least `count` messages. */
export async function sentBy(viewer, count, act) {
  const { guest } = viewer;
  const from = await mark(viewer) + 1;
  await act();
  await guest.page.waitForFunction((wanted) => window.fakeGuest.messages.length >= wanted, from + count);
  const end = await mark(viewer);
  return (await guest.messages()).slice(from, end);
}
