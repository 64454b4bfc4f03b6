import { afterEach, beforeEach, describe, expect, it, vi } from 'vitest';

import { delayBefore, type ConnectionState } from '../src/player/reconnect';
import { TerminalLine } from '../src/terminal/line';

/** How often the line looks whether it is time. */
const TICK_MS = 250;

/** What the line made of sockets, and when. */
let made: { socket: FakeSocket; at: number }[] = [];

class FakeSocket extends EventTarget {
  static readonly OPEN = 1;
  readyState = 0;
  closed = false;

  constructor() {
    super();
    made.push({ socket: this, at: performance.now() });
  }

  opens(): void {
    this.readyState = FakeSocket.OPEN;
    this.dispatchEvent(new Event('open'));
  }

  drops(): void {
    this.dispatchEvent(new Event('close'));
  }

  close(): void {
    this.closed = true;
  }
}

const newest = (): FakeSocket => {
  const last = made.at(-1);
  if (!last) throw new Error('nothing was connected');
  return last.socket;
};

function startLine(): { line: TerminalLine; said: ConnectionState[] } {
  const said: ConnectionState[] = [];
  const line = new TerminalLine('/terminal', {
    onOpen: () => undefined,
    onDrawing: () => undefined,
    onState: (state) => { if (state !== said.at(-1)) said.push(state); },
  });
  line.start();
  return { line, said };
}

/** Time until the next socket is made. */
function untilNext(): number {
  const { length } = made;
  const since = performance.now();
  while (made.length === length) vi.advanceTimersByTime(1);
  return performance.now() - since;
}

describe('the line to the terminal', () => {
  beforeEach(() => {
    made = [];
    vi.useFakeTimers();
    vi.stubGlobal('WebSocket', FakeSocket);
    vi.stubGlobal('location', { href: 'http://desktop.test/' });
  });
  afterEach(() => {
    vi.useRealTimers();
    vi.unstubAllGlobals();
  });

  it('is tried again more and more seldom while it drops at once', () => {
    const { said } = startLine();
    const pauses = Array.from({ length: 7 }, () => {
      newest().opens();
      newest().drops();
      return untilNext();
    });
    pauses.forEach((pause, index) => {
      const wanted = delayBefore(index + 2);
      expect(pause).toBeGreaterThanOrEqual(wanted);
      expect(pause).toBeLessThanOrEqual(wanted + TICK_MS);
    });
    expect(said.slice(0, 5)).toEqual(['connecting', 'connected', 'reconnecting', 'connected', 'reconnecting']);
    expect(made.every(({ socket }, index) => socket.closed || index === made.length - 1)).toBe(true);
  });

  it('is made anew at once when a good one drops', () => {
    startLine();
    newest().opens();
    vi.advanceTimersByTime(60_000);
    newest().drops();
    expect(made.map(({ at }) => at - (made[0]?.at ?? 0))).toEqual([0, 60_000]);
  });

  it('stays away once it is stopped, and its last socket is closed', () => {
    const { line, said } = startLine();
    newest().opens();
    line.stop();
    expect(newest().closed).toBe(true);
    newest().drops();
    vi.advanceTimersByTime(60_000);
    expect(made.length).toBe(1);
    expect(said).toEqual(['connecting', 'connected', 'off']);
    expect(vi.getTimerCount()).toBe(0);
  });
});
