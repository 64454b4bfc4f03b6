import { describe, expect, it } from 'vitest';

import { desktopLayout } from '../src/screens/desktop-layout';
import type { AwaitingView, Method, SessionView, StateName } from '../src/session';

const session = (method: Method, state: StateName, awaiting?: Partial<AwaitingView>): SessionView => ({
  sessionId: 's-1', provider: { id: 'demo', name: 'Demo CLI' }, operator: { id: '', name: 'Example Ltd' }, method,
  state, timeline: [], visitsOfOthers: [], createdAt: 0, deadline: 600_000, serverNow: 0, emulated: false, isolation: 'vm', instructions: '',
  credential: { status: 'none', openableBy: 'operator', recipient: 'age1operator', files: [] }, leftovers: [],
  ...(awaiting && {
    awaiting: {
      method, url: 'https://a.test/', takesCode: method === 'paste_code', screen: [], instructions: 'Do it.', deadline: 0, ...awaiting,
    },
  }),
});

const OWN_BROWSER = ['paste_code', 'device_code'] as const;

describe('the desktop screen', () => {
  it('is the picture for those who sign in with the desktop', () => {
    expect(desktopLayout(session('browser', 'booting'), false, false))
      .toEqual({ card: false, desktop: true, waiting: 'Starting your sign-in desktop' });
    expect(desktopLayout(session('browser', 'awaiting_user', {}), false, true)).toEqual({ card: false, desktop: true });
  });

  it.each(OWN_BROWSER)('is the card for %s, and no picture before it is asked for', (method) => {
    expect(desktopLayout(session(method, 'booting'), false, false))
      .toEqual({ card: false, desktop: false, waiting: 'Starting your sign-in desktop' });
    expect(desktopLayout(session(method, 'awaiting_user', {}), false, false)).toEqual({ card: true, desktop: false });
    expect(desktopLayout(session(method, 'capturing'), false, false))
      .toEqual({ card: false, desktop: false, waiting: 'Saving your sign-in' });
  });

  it.each(['browser', ...OWN_BROWSER] as const)('says for %s that the sign-in is started once they came', (method) => {
    for (const state of ['ready', 'preparing'] as const) {
      expect(desktopLayout(session(method, state), false, false).waiting).toBe('Starting your sign-in');
    }
  });

  it.each(OWN_BROWSER)('is card and picture for %s once that is asked for', (method) => {
    expect(desktopLayout(session(method, 'awaiting_user', {}), true, false))
      .toEqual({ card: true, desktop: true, waiting: 'Opening the desktop' });
    expect(desktopLayout(session(method, 'awaiting_user', {}), true, true)).toEqual({ card: true, desktop: true });
  });

  it.each(['browser', ...OWN_BROWSER] as const)('is the terminal for %s where only that can be answered', (method) => {
    for (const url of [null, undefined, '']) {
      const { card, demand } = desktopLayout(session(method, 'awaiting_user', { url: url as string | null }), false, true);
      expect([card, demand]).toEqual([false, 'Do it.']);
    }
  });
});
