// Which parts of the desktop screen are shown. Pure.

import type { SessionView } from '../session';

export interface DesktopLayout {
  /** The page and the code, for those who sign in with their own browser. */
  card: boolean;
  /** The picture of the desktop, which is what connects the player. */
  desktop: boolean;
  /** The title above the steps of the session, which are shown until there is a picture. */
  waiting?: string;
  /** What the end user has to do in the tool's terminal, which is shown for it. */
  demand?: string;
}

/** `desktopAsked`: the end user wants the desktop without needing it; `hasPicture`: a frame was shown. */
export function desktopLayout(session: SessionView, desktopAsked: boolean, hasPicture: boolean): DesktopLayout {
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
      return 'Starting your sign-in desktop';
    case 'preparing':
    case 'ready':
      return 'Starting your sign-in';
    case 'awaiting_user':
      if (!desktop) return undefined;
      return method === 'browser' ? 'Starting your sign-in desktop' : 'Opening the desktop';
    case 'capturing':
    case 'sealed':
    case 'ended':
      return 'Saving your sign-in';
  }
}
