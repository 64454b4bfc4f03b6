// A page that the stream is measured with. Each key flips the block at its top; it has text to scroll
// and to type in, and a part that moves once Escape was pressed.

/** Guest pixels of the block's side. */
export const BLOCK = 64;

/** Answers `/stream`. */
export function serveStream(response) {
  response.writeHead(200, { 'Content-Type': 'text/html; charset=utf-8', 'Cache-Control': 'no-store' });
  response.end(PAGE);
}

/** Runs in the page; it may use nothing from outside. */
function behave() {
  const block = document.getElementById('block').getContext('2d');
  const field = document.getElementById('field').getContext('2d');
  const box = document.getElementById('box');
  let isDark = false;
  let turn = 0;
  let moves = false;

  function flip() {
    isDark = !isDark;
    block.fillStyle = isDark ? '#000' : '#fff';
    block.fillRect(0, 0, block.canvas.width, block.canvas.height);
  }

  function move() {
    if (!moves) return;
    turn += 1;
    field.fillStyle = '#dfe8f5';
    field.fillRect(0, 0, 300, 200);
    field.fillStyle = `hsl(${turn % 360} 70% 50%)`;
    field.beginPath();
    field.arc(150 + 100 * Math.cos(turn / 24), 100 + 60 * Math.sin(turn / 18), 30, 0, 7);
    field.fill();
    requestAnimationFrame(move);
  }

  document.addEventListener('keydown', (event) => {
    if (event.key === 'Escape') {
      moves = !moves;
      move();
    } else if (event.key.length === 1) {
      flip();
    }
  });
  box.addEventListener('input', () => { if (box.value.length > 300) box.value = ''; });
  flip();
  box.focus();
}

const LINES = Array.from({ length: 2000 }, (_, at) =>
  `<p>${at + 1}. ${'The quick brown fox jumps over the lazy dog, and the line goes on for a while.'.slice(at % 23)}</p>`).join('');

const PAGE = `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>Stream</title><link rel="icon" href="data:,">
<style>
body { margin: 80px 320px 160px 20px; font: 16px/1.6 sans-serif; }
#block { position: fixed; left: 0; top: 0; z-index: 2; }
#field { position: fixed; right: 0; top: 80px; }
#box { position: fixed; left: 20px; bottom: 10px; width: 600px; height: 120px; font: 18px monospace; }
</style></head><body>
<canvas id="block" width="${BLOCK}" height="${BLOCK}"></canvas><canvas id="field" width="300" height="200"></canvas>
${LINES}<textarea id="box"></textarea>
<script>(${behave})()</script>
</body></html>`;
