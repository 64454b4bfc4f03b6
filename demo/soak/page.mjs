// A page that moves, scrolls and takes text, and says how it fared: each 5 s it reports how far it
// counted, which of its own pictures came late, and what of the end user's typing arrived.

import { readBody } from '../oidc-provider/body.mjs';
import { BITS, CELL, CELLS, PREAMBLE } from './code.mjs';

const MAX_REPORT_BYTES = 64 * 1024;

/** Answers `/soak` and `/soak/report`; reports go to `say`. */
export async function serveSoak(request, response, say) {
  if (request.method === 'POST') {
    say({ soak: JSON.parse(await readBody(request, MAX_REPORT_BYTES, 'report')) });
    response.writeHead(204).end();
    return;
  }
  response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8', 'Cache-Control': 'no-store' });
  response.end(PAGE);
}

/** Runs in the page; the constants come as its arguments. */
function count({ BITS, CELL, CELLS, PREAMBLE }) {
  /** 20 pictures a second: as a page with a video or a spinner. */
  const EVERY_MS = 50;
  const LATE_MS = 200;
  const strip = document.getElementById('strip').getContext('2d');
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
    field.fillStyle = '#dfe8f5';
    field.fillRect(0, 0, 300, 200);
    field.fillStyle = `hsl(${counter % 360} 70% 50%)`;
    field.beginPath();
    field.arc(150 + 100 * Math.cos(counter / 12), 100 + 60 * Math.sin(counter / 9), 30, 0, 7);
    field.fill();
    setTimeout(() => requestAnimationFrame(draw), EVERY_MS);
  }

  async function report() {
    const report = { counter, drawn, late, typed, scrolled };
    [drawn, late] = [[], []];
    try {
      await fetch('/soak/report', { method: 'POST', body: JSON.stringify(report) });
    } catch {
      late = [...report.late, ...late];
    }
    setTimeout(report, 5000);
  }

  box.addEventListener('keydown', (event) => { if (event.key.length === 1) typed += 1; });
  box.addEventListener('input', () => { if (box.value.length > 300) box.value = ''; });
  document.addEventListener('scroll', () => { scrolled += 1; });
  document.getElementById('strip').width = CELLS * CELL;
  box.focus();
  draw();
  report();
}

const LINES = Array.from({ length: 400 }, (_, at) =>
  `<p>${at + 1}. The quick brown fox jumps over the lazy dog, and the line goes on for a while.</p>`).join('');

const PAGE = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Soak</title><link rel="icon" href="data:,">
<style>
body { margin: 40px 320px 160px 20px; font: 16px/1.6 sans-serif; }
#strip { position: fixed; left: 0; top: 0; z-index: 2; }
#field { position: fixed; right: 0; top: 40px; }
#box { position: fixed; left: 20px; bottom: 10px; width: 600px; height: 120px; font: 18px monospace; }
</style></head><body>
<canvas id="strip" height="${CELL}"></canvas><canvas id="field" width="300" height="200"></canvas>
${LINES}<textarea id="box"></textarea>
<script>(${count})(${JSON.stringify({ BITS, CELL, CELLS, PREAMBLE })})</script>
</body></html>`;
