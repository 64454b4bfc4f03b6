// What the timeline has to say to the end user. Pure.

import type { TimelineEntry } from '../session';
import { sentence } from '../ui-strings';

export interface CodeNews {
  /** When the last code was typed into the tool, by the server's clock. */
  enteredAt?: number;
  /** The last message to the end user since that code. */
  message?: string;
}

/** About the code that the end user entered. */
export function codeNews(timeline: readonly TimelineEntry[]): CodeNews {
  const last = timeline.findLastIndex(({ kind }) => kind === 'code_entered');
  const entered = timeline[last];
  const notified = timeline.slice(last + 1).findLast(({ kind }) => kind === 'end_user_notified');
  return {
    ...(entered && { enteredAt: entered.at }),
    ...(notified && { message: sentence(notified.message) }),
  };
}

/** About a host of the sign-in that cannot be reached; nothing once it was. */
export function hostNews(timeline: readonly TimelineEntry[]): string | undefined {
  const last = timeline.findLast(({ kind }) => kind === 'host_unreachable' || kind === 'host_reached');
  return last?.kind === 'host_unreachable' ? sentence(last.message) : undefined;
}
