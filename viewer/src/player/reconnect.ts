// When to connect, to wait and to connect again. Pure: time comes in, decisions go out.

/** Where the connection stands. */
export type LinkState =
  | { name: 'idle' }
  | { name: 'connecting'; attempt: number; since: number }
  | { name: 'connected'; attempt: number; since: number }
  /** Packets stopped; it often mends by itself. */
  | { name: 'faltering'; since: number }
  | { name: 'waiting'; attempt: number; until: number };

/** Where it stands, for whoever shows it. */
export type ConnectionState = 'off' | 'connecting' | 'connected' | 'reconnecting' | 'unreachable';

export type LinkEvent =
  | { type: 'start' }
  | { type: 'stop' }
  /** Something changed that makes a new attempt worthwhile: do not wait longer. */
  | { type: 'nudge' }
  | { type: 'up' }
  | { type: 'disconnected' }
  | { type: 'failed' }
  | { type: 'tick' };

/** What the caller has to do. */
export type LinkAction = 'none' | 'open' | 'close';

/** How long a broken connection may mend by itself, in milliseconds. */
export const MEND_MS = 3_000;
/** How long one attempt may take, in milliseconds. */
export const ATTEMPT_MS = 12_000;
/** A connection that lasted this long was good: the next attempt is a first one again. */
const GOOD_MS = 5_000;
const FIRST_DELAY_MS = 250;
const LONGEST_DELAY_MS = 4_000;

/** Answered offers without a connection before that is reported: the path for media is blocked. */
const ANSWERS_IN_VAIN = 2;

/** `answered`: offers that the guest has answered since it was last connected. */
export function shownState(link: LinkState, wasConnected: boolean, answered: number): ConnectionState {
  switch (link.name) {
    case 'idle':
      return 'off';
    case 'connected':
      return 'connected';
    case 'faltering':
      return 'reconnecting';
    case 'connecting':
    case 'waiting':
      if (answered >= ANSWERS_IN_VAIN) return 'unreachable';
      return wasConnected ? 'reconnecting' : 'connecting';
  }
}

/** The pause before attempt number `attempt` (the first is 1, at once). */
export function delayBefore(attempt: number): number {
  if (attempt <= 1) return 0;
  return Math.min(FIRST_DELAY_MS * 2 ** Math.min(attempt - 2, 10), LONGEST_DELAY_MS);
}

export function step(state: LinkState, event: LinkEvent, now: number): { state: LinkState; action: LinkAction } {
  const stay = { state, action: 'none' as const };
  switch (event.type) {
    case 'stop':
      return { state: { name: 'idle' }, action: state.name === 'idle' ? 'none' : 'close' };
    case 'start':
      return state.name === 'idle' ? open(1, now) : stay;
    case 'nudge':
      return state.name === 'waiting' ? open(state.attempt, now) : stay;
    case 'up':
      if (state.name === 'connecting') return connected(state.attempt, now);
      return state.name === 'faltering' ? connected(1, now) : stay;
    case 'disconnected':
      return state.name === 'connected' ? { state: { name: 'faltering', since: now }, action: 'none' } : stay;
    case 'failed':
      return retry(state, now) ?? stay;
    case 'tick':
      return tick(state, now) ?? stay;
  }
}

function open(attempt: number, now: number): { state: LinkState; action: LinkAction } {
  return { state: { name: 'connecting', attempt, since: now }, action: 'open' };
}

function connected(attempt: number, now: number): { state: LinkState; action: LinkAction } {
  return { state: { name: 'connected', attempt, since: now }, action: 'none' };
}

function pause(attempt: number, now: number): { state: LinkState; action: LinkAction } {
  return { state: { name: 'waiting', attempt, until: now + delayBefore(attempt) }, action: 'close' };
}

function retry(state: LinkState, now: number): { state: LinkState; action: LinkAction } | undefined {
  switch (state.name) {
    case 'connecting':
      return pause(state.attempt + 1, now);
    case 'connected':
      return now - state.since < GOOD_MS ? pause(state.attempt + 1, now) : open(1, now);
    case 'faltering':
      return open(1, now);
    case 'idle':
    case 'waiting':
      return undefined;
  }
}

function tick(state: LinkState, now: number): { state: LinkState; action: LinkAction } | undefined {
  switch (state.name) {
    case 'waiting':
      return now >= state.until ? open(state.attempt, now) : undefined;
    case 'faltering':
      return now - state.since >= MEND_MS ? open(1, now) : undefined;
    case 'connecting':
      return now - state.since >= ATTEMPT_MS ? retry(state, now) : undefined;
    case 'idle':
    case 'connected':
      return undefined;
  }
}
