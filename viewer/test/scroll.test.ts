import { expect, it } from 'vitest';

import { ScrollAccumulator } from '../src/player/scroll';

const pixels = (deltaX: number, deltaY: number) => ({ deltaX, deltaY, deltaMode: 0 });

it('gives one notch for a wheel click, in pixels and in lines', () => {
  expect(new ScrollAccumulator().add(pixels(0, 100))).toEqual({ dx: 0, dy: 1 });
  expect(new ScrollAccumulator().add(pixels(0, -100))).toEqual({ dx: 0, dy: -1 });
  expect(new ScrollAccumulator().add({ deltaX: 0, deltaY: 3, deltaMode: 1 })).toEqual({ dx: 0, dy: 1 });
});

it('sums the small steps of a trackpad, and loses none', () => {
  const scroll = new ScrollAccumulator();
  let notches = 0;
  for (let step = 0; step < 1000; step += 1) notches += scroll.add(pixels(0, 10))?.dy ?? 0;
  expect(notches).toBe(100);
});

it('answers a change of direction without first undoing the rest', () => {
  const scroll = new ScrollAccumulator();
  expect(scroll.add(pixels(0, 90))).toBeUndefined();
  expect(scroll.add(pixels(0, -100))).toEqual({ dx: 0, dy: -1 });
});

it('keeps both directions apart', () => {
  const scroll = new ScrollAccumulator();
  expect(scroll.add(pixels(60, 100))).toEqual({ dx: 0, dy: 1 });
  expect(scroll.add(pixels(60, 0))).toEqual({ dx: 1, dy: 0 });
});

it('stays within what the guest takes, and does not go on scrolling', () => {
  const scroll = new ScrollAccumulator();
  expect(scroll.add(pixels(0, 1e9))).toEqual({ dx: 0, dy: 32 });
  expect(scroll.add(pixels(0, 10))).toBeUndefined();
  expect(scroll.add(pixels(0, Number.NaN))).toBeUndefined();
});
