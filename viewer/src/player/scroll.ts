// From wheel events, in pixels or lines, to whole notches of a mouse wheel.

import { MAX_SCROLL_NOTCHES } from './messages';

/** What of a WheelEvent counts. */
export interface WheelDelta {
  deltaX: number;
  deltaY: number;
  /** 0 pixels, 1 lines, 2 pages. */
  deltaMode: number;
}

const UNITS_PER_NOTCH = [100, 3, 1] as const;

/** Keeps the fraction of a notch that slow trackpad movement leaves. */
export class ScrollAccumulator {
  #x = 0;
  #y = 0;

  /** The whole notches that are due, or undefined while there is only a fraction. */
  add(delta: WheelDelta): { dx: number; dy: number } | undefined {
    const unit = UNITS_PER_NOTCH[delta.deltaMode] ?? UNITS_PER_NOTCH[0];
    this.#x = advance(this.#x, delta.deltaX / unit);
    this.#y = advance(this.#y, delta.deltaY / unit);
    const dx = whole(this.#x);
    const dy = whole(this.#y);
    if (dx === 0 && dy === 0) return undefined;
    this.#x = keep(this.#x - dx, dx);
    this.#y = keep(this.#y - dy, dy);
    return { dx, dy };
  }

  reset(): void {
    this.#x = 0;
    this.#y = 0;
  }
}

/** A change of direction drops the fraction of the other: the first notch back comes at once. */
function advance(rest: number, step: number): number {
  if (!Number.isFinite(step)) return rest;
  return rest * step < 0 ? step : rest + step;
}

function whole(notches: number): number {
  // Sums of tenths fall just short of a whole number.
  const towardsZero = Math.trunc(notches + Math.sign(notches) * 1e-9);
  const limited = Math.min(Math.max(towardsZero, -MAX_SCROLL_NOTCHES), MAX_SCROLL_NOTCHES);
  return limited === 0 ? 0 : limited;
}

/** What was over the limit is dropped, or the page would go on scrolling by itself. */
function keep(rest: number, sent: number): number {
  return Math.abs(sent) === MAX_SCROLL_NOTCHES ? 0 : rest;
}
