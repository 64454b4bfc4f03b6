// A page that moves, scrolls and takes text, and says how it fared: each 5 s it reports how far it
// counted, which of its own pictures came late, and what of the end user's typing arrived.

import { readBody } from '../oidc-provider/body.mjs';
import { SENTENCE, sendPage, textPage } from '../text-page.mjs';
import { BITS, CELL, CELLS, PREAMBLE } from './code.mjs';

const MAX_REPORT_BYTES = 64 * 1024;

/** Answers `/soak` and `/soak/report`; reports go to `say`. */
export async function serveSoak(request, response, say) {
  if (request.method === 'POST') {
    say({ soak: JSON.parse(await readBody(request, MAX_REPORT_BYTES, 'report')) });
    response.writeHead(204).end();
    return;
  }
  sendPage(response, PAGE);
}

/** Runs in the page; the constants come as its arguments. */
function count({ BITS, CELL, CELLS, PREAMBLE }) {
  /** 20 pictures a second: as a page with a video or a spinner. */
  const EVERY_MS = 50;
  const LATE_MS = 200;
  const strip = document.getElementById('mark').getContext('2d');
  const field = document.getElementById('field').getContext('2d');
  const box = document.getElementById('box');
  let counter = 0;
  let last = performance.now();
  /** When some of the pictures were drawn: number, time of day. */
  let drawn = [];
  let late = [];
  let typed = 0;
  let scrolled = 0;

  function draw() {
    const now = performance.now();
    counter += 1;
    if (now - last > LATE_MS) late.push([counter, Math.round(now - last)]);
    last = now;
    if (counter % 5 === 0) drawn.push([counter, Date.now()]);
    const bits = Array.from({ length: BITS }, (_, at) => (counter >> (BITS - 1 - at)) & 1);
    const ones = bits.reduce((sum, bit) => sum + bit, 0);
    [...PREAMBLE, ...bits, (ones + 1) % 2].forEach((bit, at) => {
      strip.fillStyle = bit ? '#000' : '#fff';
      strip.fillRect(at * CELL, 0, CELL, CELL);
    });
    drawBall(field, counter / 12, counter / 9, counter);
    setTimeout(() => requestAnimationFrame(draw), EVERY_MS);
  }

  async function report() {
    const seen = { counter, drawn, late, typed, scrolled };
    [drawn, late] = [[], []];
    try {
      await fetch('/soak/report', { method: 'POST', body: JSON.stringify(seen) });
    } catch {
      late = [...seen.late, ...late];
    }
    setTimeout(report, 5000);
  }

  box.addEventListener('keydown', (event) => { if (event.key.length === 1) typed += 1; });
  document.addEventListener('scroll', () => { scrolled += 1; });
  draw();
  report();
}

const PAGE = textPage({
  title: 'Soak',
  mark: { width: CELLS * CELL, height: CELL },
  top: 40,
  lines: Array.from({ length: 400 }, () => SENTENCE),
  script: count,
  constants: { BITS, CELL, CELLS, PREAMBLE },
});
