import { describe, expect, it } from 'vitest';

import {
  ATTEMPT_MS, delayBefore, MEND_MS, shownState, step, type LinkAction, type LinkEvent, type LinkState,
} from '../src/player/reconnect';

/** Runs events at their times; gives the actions that were asked for, and the last state. */
function run(events: [number, LinkEvent['type']][]): { actions: LinkAction[]; state: LinkState } {
  let state: LinkState = { name: 'idle' };
  const actions: LinkAction[] = [];
  for (const [now, type] of events) {
    const next = step(state, { type }, now);
    state = next.state;
    if (next.action !== 'none') actions.push(next.action);
  }
  return { actions, state };
}

describe('the reconnection policy', () => {
  it('opens at once and settles', () => {
    expect(run([[0, 'start'], [80, 'up']])).toEqual({
      actions: ['open'], state: { name: 'connected', attempt: 1, since: 80 },
    });
  });

  it('waits longer after each failure, up to a limit', () => {
    expect([1, 2, 3, 4, 5, 6, 7, 99].map(delayBefore)).toEqual([0, 250, 500, 1000, 2000, 4000, 4000, 4000]);
    const { actions, state } = run([[0, 'start'], [10, 'failed'], [100, 'tick'], [260, 'tick'], [270, 'failed'], [700, 'tick']]);
    expect(actions).toEqual(['open', 'close', 'open', 'close']);
    expect(state).toEqual({ name: 'waiting', attempt: 3, until: 770 });
  });

  it('gives a silent connection time to mend', () => {
    const silent: [number, LinkEvent['type']][] = [[0, 'start'], [1, 'up'], [9000, 'disconnected']];
    expect(run([...silent, [9000 + MEND_MS - 1, 'tick']]).actions).toEqual(['open']);
    expect(run([...silent, [9500, 'up'], [20_000, 'tick']]).actions).toEqual(['open']);
    expect(run([...silent, [9000 + MEND_MS, 'tick']]).actions).toEqual(['open', 'open']);
  });

  it('opens a new one at once when a good connection fails, but does not spin on a bad one', () => {
    expect(run([[0, 'start'], [1, 'up'], [60_000, 'failed']]).state.name).toBe('connecting');
    expect(run([[0, 'start'], [1, 'up'], [50, 'failed']]).state).toEqual({ name: 'waiting', attempt: 2, until: 300 });
  });

  it('gives up an attempt that never answers', () => {
    expect(run([[0, 'start'], [ATTEMPT_MS, 'tick']]).state.name).toBe('waiting');
  });

  it('does not wait on when it is nudged', () => {
    expect(run([[0, 'start'], [1, 'failed'], [2, 'nudge']]).actions).toEqual(['open', 'close', 'open']);
    expect(run([[0, 'start'], [1, 'up'], [2, 'nudge']]).actions).toEqual(['open']);
  });

  it('stops from every state, and stays stopped', () => {
    for (const before of [[], ['failed'], ['up'], ['up', 'disconnected']] as LinkEvent['type'][][]) {
      const events: [number, LinkEvent['type']][] = [[0, 'start'], ...before.map((type): [number, LinkEvent['type']] => [1, type])];
      const { actions, state } = run([...events, [2, 'stop'], [3, 'failed'], [99_999, 'tick'], [99_999, 'nudge'], [99_999, 'up']]);
      expect(state).toEqual({ name: 'idle' });
      expect(actions.at(-1)).toBe('close');
    }
  });

  it('says so when the guest answers and nothing comes', () => {
    const connecting: LinkState = { name: 'connecting', attempt: 2, since: 0 };
    expect([0, 1, 2, 9].map((answered) => shownState(connecting, false, answered)))
      .toEqual(['connecting', 'connecting', 'unreachable', 'unreachable']);
    expect(shownState({ name: 'waiting', attempt: 3, until: 9 }, true, 1)).toBe('reconnecting');
    expect(shownState({ name: 'waiting', attempt: 3, until: 9 }, true, 2)).toBe('unreachable');
    expect(shownState({ name: 'connected', attempt: 3, since: 0 }, true, 2)).toBe('connected');
  });
});
