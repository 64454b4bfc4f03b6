// A page of text that the end users of the benchmarks scroll, type in and watch.

/** Runs in the page: draws the ball of the part that moves, at these angles. */
function drawBall(field, x, y, hue) {
  field.fillStyle = '#dfe8f5';
  field.fillRect(0, 0, 300, 200);
  field.fillStyle = `hsl(${hue % 360} 70% 50%)`;
  field.beginPath();
  field.arc(150 + 100 * Math.cos(x), 100 + 60 * Math.sin(y), 30, 0, 7);
  field.fill();
}

/** Runs in the page: what is typed does not fill it. */
function emptyWhenFull(box) {
  box.addEventListener('input', () => { if (box.value.length > 300) box.value = ''; });
  box.focus();
}

/**
 * The page: `mark` is the canvas at its top left, `#field` the one in which `drawBall` draws, `#box` takes text.
 * `script` runs in it, with these constants.
 */
export function textPage({ title, mark, top, lines, script, constants = {} }) {
  const paragraphs = lines.map((line, at) => `<p>${at + 1}. ${line}</p>`).join('');
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>${title}</title><link rel="icon" href="data:,">
<style>
body { margin: ${top}px 320px 160px 20px; font: 16px/1.6 sans-serif; }
#mark { position: fixed; left: 0; top: 0; z-index: 2; }
#field { position: fixed; right: 0; top: ${top}px; }
#box { position: fixed; left: 20px; bottom: 10px; width: 600px; height: 120px; font: 18px monospace; }
</style></head><body>
<canvas id="mark" width="${mark.width}" height="${mark.height}"></canvas><canvas id="field" width="300" height="200"></canvas>
${paragraphs}<textarea id="box"></textarea>
<script>
${drawBall}
${emptyWhenFull}
emptyWhenFull(document.getElementById('box'));
(${script})(${JSON.stringify(constants)});
</script>
</body></html>`;
}

/** What a line says. */
export const SENTENCE = 'The quick brown fox jumps over the lazy dog, and the line goes on for a while.';

export function sendPage(response, page) {
  response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8', 'Cache-Control': 'no-store' });
  response.end(page);
}
