// A session as the server shows it to its viewer: the API's own types, by the names that are used here.

import type { TimelineEntry, EndUserSessionView } from './wire';

export type { AwaitingView, Explanation, Leftover, TimelineEntry, Visit } from './wire';
export type SessionView = EndUserSessionView;
export type StateName = EndUserSessionView['state'];
export type Method = EndUserSessionView['method'];

type Actor = NonNullable<TimelineEntry['by']>;

/** Who cancelled the session, where somebody did. */
export function cancelledBy({ reason }: SessionView): Actor | undefined {
  if (reason?.code !== 'cancelled') return undefined;
  return (reason.detail as { by?: Actor }).by;
}
