// What the timeline says to the person. Pure.

import type { TimelineEntry } from '../session';
import { sentence } from '../words';

export interface CodeNews {
  /** When the last code was typed into the tool, by the server's clock. */
  enteredAt?: number;
  /** What the person was told last, and since that code. */
  told?: string;
}

/** About the code that they brought. */
export function codeNews(timeline: readonly TimelineEntry[]): CodeNews {
  const last = timeline.findLastIndex(({ kind }) => kind === 'code_entered');
  const entered = timeline[last];
  const told = timeline.slice(last + 1).findLast(({ kind }) => kind === 'end_user_notified');
  return {
    ...(entered && { enteredAt: entered.at }),
    ...(told && { told: sentence(told.message) }),
  };
}

/** About a host of the sign-in that cannot be reached; nothing once it was. */
export function hostNews(timeline: readonly TimelineEntry[]): string | undefined {
  const last = timeline.findLast(({ kind }) => kind === 'host_unreachable' || kind === 'host_reached');
  return last?.kind === 'host_unreachable' ? sentence(last.message) : undefined;
}
