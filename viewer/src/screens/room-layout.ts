// What of the room is on screen. Pure.

import type { SessionView } from '../session';

export interface RoomLayout {
  /** The page and the code, for those who sign in with their own browser. */
  card: boolean;
  /** The picture of the desktop, which is what connects the player. */
  desktop: boolean;
  /** The way through the session, over the place of the picture; what it is headed. */
  waiting?: string;
  /** What the person has to do in the tool's terminal, which is shown for it. */
  demand?: string;
}

/** `desktopAsked`: the person wants the desktop although they need it not; `hasPicture`: one was seen. */
export function roomLayout(session: SessionView, desktopAsked: boolean, hasPicture: boolean): RoomLayout {
  const { awaiting, method } = session;
  const demand = awaiting && !awaiting.url ? awaiting.instructions : undefined;
  const card = method !== 'browser' && awaiting !== undefined && demand === undefined;
  const desktop = method === 'browser' || desktopAsked;
  const waiting = waitingTitle(session, desktop, hasPicture);
  return { card, desktop, ...(waiting && { waiting }), ...(demand && { demand }) };
}

function waitingTitle({ state, method }: SessionView, desktop: boolean, hasPicture: boolean): string | undefined {
  if (desktop && hasPicture) return undefined;
  switch (state) {
    case 'requested':
    case 'booting':
      return 'Your room is being made';
    case 'preparing':
    case 'ready':
      return 'Your sign-in is being started';
    case 'awaiting_user':
      if (!desktop) return undefined;
      return method === 'browser' ? 'Your room is being made' : 'The desktop is being opened';
    case 'capturing':
    case 'sealed':
    case 'ended':
      return 'Your sign-in is being saved';
  }
}
