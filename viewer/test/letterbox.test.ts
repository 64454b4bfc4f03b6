import { describe, expect, it } from 'vitest';

import { pictureRectangle, toGuestPixel } from '../src/player/letterbox';

const picture = { width: 1280, height: 720 };

describe('pictureRectangle', () => {
  it('leaves bars left and right of a picture in a wide element', () => {
    expect(pictureRectangle({ left: 10, top: 48, width: 2000, height: 720 }, picture))
      .toEqual({ left: 370, top: 48, width: 1280, height: 720 });
  });

  it('leaves bars above and below in a tall element', () => {
    expect(pictureRectangle({ left: 0, top: 0, width: 640, height: 800 }, picture))
      .toEqual({ left: 0, top: 220, width: 640, height: 360 });
  });

  it('has none before the first frame, or while the element has no size', () => {
    expect(pictureRectangle({ left: 0, top: 0, width: 640, height: 400 }, { width: 0, height: 0 })).toBeUndefined();
    expect(pictureRectangle({ left: 0, top: 0, width: 0, height: 0 }, picture)).toBeUndefined();
  });
});

describe('toGuestPixel', () => {
  const half = { left: 0, top: 220, width: 640, height: 800 };

  it('maps corners to the first and the last pixel', () => {
    const element = { left: 0, top: 0, width: 640, height: 360 };
    expect(toGuestPixel({ x: 0, y: 0 }, element, picture)).toEqual({ x: 0, y: 0, inside: true });
    expect(toGuestPixel({ x: 639.9, y: 359.9 }, element, picture)).toEqual({ x: 1279, y: 719, inside: true });
  });

  it('takes the bars into account', () => {
    expect(toGuestPixel({ x: 320, y: 620 }, half, picture)).toEqual({ x: 640, y: 360, inside: true });
  });

  it('moves a point on a bar to the nearest pixel, and says so', () => {
    expect(toGuestPixel({ x: 320, y: 221 }, half, picture)).toEqual({ x: 640, y: 0, inside: false });
    expect(toGuestPixel({ x: -50, y: 9999 }, half, picture)).toEqual({ x: 0, y: 719, inside: false });
  });

  it('gives whole pixels of the guest for every point and size', () => {
    for (let step = 0; step < 500; step += 1) {
      const element = { left: step % 7, top: step % 11, width: 100 + step * 3.7, height: 90 + step * 1.3 };
      const point = toGuestPixel({ x: step * 5.3 - 200, y: step * 2.9 - 100 }, element, picture);
      expect(point).toBeDefined();
      expect(Number.isInteger(point?.x) && Number.isInteger(point?.y)).toBe(true);
      expect(point?.x).toBeGreaterThanOrEqual(0);
      expect(point?.x).toBeLessThan(1280);
      expect(point?.y).toBeGreaterThanOrEqual(0);
      expect(point?.y).toBeLessThan(720);
    }
  });
});
