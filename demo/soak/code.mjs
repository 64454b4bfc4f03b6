// The strip of cells in which the soak page counts its pictures: what is shown says which picture of
// the guest it is, whatever lies between.

/** Pixels of a cell, and where the first one is; large enough to survive the video codec. */
export const CELL = 20;
/** Distinguishes the strip from other pixels. */
export const PREAMBLE = [1, 0, 1, 0];
/** The counter's bits, most significant first; an odd parity bit follows. */
export const BITS = 24;
/** Cells in all. */
export const CELLS = PREAMBLE.length + BITS + 1;
