// A page that the stream is measured with. Each key flips the block at its top; it has text to scroll
// and to type in, and a part that moves once Escape was pressed.

import { SENTENCE, sendPage, textPage } from '../text-page.mjs';

/** Guest pixels of the block's side. */
export const BLOCK = 64;

/** Answers `/stream`. */
export function serveStream(response) {
  sendPage(response, PAGE);
}

/** Runs in the page, beside `drawBall`; it may use nothing else from outside. */
function behave() {
  const block = document.getElementById('mark').getContext('2d');
  const field = document.getElementById('field').getContext('2d');
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
    drawBall(field, turn / 24, turn / 18, turn);
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
  flip();
}

const PAGE = textPage({
  title: 'Stream',
  mark: { width: BLOCK, height: BLOCK },
  top: 80,
  // Lines differ from their neighbours, as text does.
  lines: Array.from({ length: 2000 }, (_, at) => SENTENCE.slice(at % 23)),
  script: behave,
});
