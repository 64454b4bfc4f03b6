// What the person reads, for each state and each end. Pure.

import { cancelledBy, type SessionView, type StateName, type TimelineEntry, type Visit } from './session';

export function stateWords(state: StateName): string {
  switch (state) {
    case 'requested':
    case 'booting':
      return 'Starting the room…';
    case 'preparing':
    // A room that waited for the person waits no more: they look at it.
    case 'ready':
      return 'Starting the sign-in…';
    case 'awaiting_user':
      return 'Your turn: sign in';
    case 'capturing':
    case 'sealed':
      return 'Saving your sign-in…';
    case 'ended':
      return 'Done';
  }
}

/** The way through a session, as the person sees it. */
export const STEPS: readonly string[] = ['Start the room', 'Start the sign-in', 'You sign in', 'Save and clean up'];

/** Which of the steps a state belongs to; their number once it is over. */
export function stepIndex(state: StateName): number {
  switch (state) {
    case 'requested':
    case 'booting':
      return 0;
    case 'preparing':
    case 'ready':
      return 1;
    case 'awaiting_user':
      return 2;
    case 'capturing':
    case 'sealed':
      return 3;
    case 'ended':
      return 4;
  }
}

/** About who looks, not about the room. */
const VISITS = /^(viewer|link|links|terminal|vnc)_/;

/** What happened, as far as it is about the room: that a viewer came is no news to the viewer. */
export function ofTheRoom(session: SessionView): TimelineEntry[] {
  return session.timeline.filter(({ kind }) => !VISITS.test(kind));
}

/** What of it happened last. */
export function latestWords(session: SessionView): string {
  return sentence(ofTheRoom(session).at(-1)?.message ?? '');
}

/** Minutes and seconds, never below zero. */
export function timeLeft(milliseconds: number): string {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  const two = (value: number) => String(value).padStart(2, '0');
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor(seconds / 60) % 60;
  return hours > 0 ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

/** From when on the person is warned, in milliseconds. */
export const WARN_BELOW_MS = 60_000;

/** What the person must know about time, if anything: the nearer of the two ends, in milliseconds from now. */
export function timeWarning(deadline: number, idle: number | undefined, desktop: boolean): string | undefined {
  if (idle !== undefined && idle < WARN_BELOW_MS && idle < deadline) {
    const stay = desktop ? 'Move the mouse in the picture to stay.' : 'Type in the tool’s terminal to stay.';
    return `Are you still there? Without a touch the room closes in less than a minute. ${stay}`;
  }
  return deadline < WARN_BELOW_MS ? 'Less than a minute is left. Then this sign-in ends.' : undefined;
}

/** What to do when the room is there and its picture does not come through. */
export function unreachableWords(operator: string): string {
  return 'The picture does not get through: something on the way, most often a firewall, lets no video (UDP) pass. ' +
    `Try another network, such as your phone’s. If it does not come there either, tell ${operator}.`;
}

/** The hour and minute of a time on the server's clock, as the person's own clock shows it. */
export function clockTime(at: number, session: SessionView, now: number): string {
  const local = new Date(at - session.serverNow + now);
  return local.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
}

/** What others opened of the room: by an earlier link, which is closed, and with a key, which is not. */
export function visitWords(session: SessionView, now: number): string | undefined {
  const visits = session.visitsOfOthers;
  const byLink = visits.filter(({ viewer }) => viewer.by === 'link');
  const byKey = visits.filter(({ viewer }) => viewer.by === 'api_key').at(-1);
  const words: string[] = [];
  const first = byLink.at(0);
  if (first) {
    const saw = [...new Set(byLink.map(opened).filter((name) => name !== ''))];
    const what = saw.length > 0 ? ` It showed ${saw.join(' and ')}.` : '';
    words.push(`An earlier link to this sign-in was opened at ${clockTime(first.at, session, now)}.${what} ` +
      `That link is closed now. If it was not you who opened it, tell ${session.operator.name}.`);
  }
  if (byKey) {
    words.push(`At ${clockTime(byKey.at, session, now)} somebody with an API key of this Anteroom opened ${opened(byKey)}.`);
  }
  return words.length > 0 ? words.join(' ') : undefined;
}

function opened(visit: Visit): string {
  switch (visit.opened) {
    case 'link':
      return '';
    case 'picture':
      return 'the picture';
    case 'terminal':
      return 'the terminal';
    case 'vnc':
      return 'the desktop by VNC';
  }
}

/** Who can open the sealed credential, to follow "The credential can be opened by". */
export function credentialOwner(session: SessionView): string {
  const { openableBy, recipient } = session.credential;
  if (openableBy === 'operator') return session.operator.name;
  return recipient
    ? `whoever holds the key for ${shortRecipient(recipient)}, and nobody else`
    : 'whoever asked for this sign-in, and nobody else';
}

/** What the tool's terms say of who may hold the login, where somebody read them. */
export function termsWords({ provider, operator, credential }: SessionView): string | undefined {
  const { terms } = credential;
  if (!terms) return undefined;
  const read = `as read on ${terms.read} (${terms.page})`;
  if (terms.custody === 'vault') return `The terms of ${provider.name}, ${read}, allow whoever runs this to hold your login.`;
  return terms.overridden
    ? `The terms of ${provider.name}, ${read}, let nobody but you hold your login. ${operator.name} decided otherwise, and can open it.`
    : `The terms of ${provider.name}, ${read}, let nobody but you hold your login: the key that opens it must be yours.`;
}

/** Enough of an age recipient to recognise it. */
export function shortRecipient(recipient: string): string {
  return recipient.length <= 24 ? recipient : `${recipient.slice(0, 12)}…${recipient.slice(-8)}`;
}

export interface EndWords {
  success: boolean;
  title: string;
  /** What happened, one or two sentences. */
  text: string;
  /** What the person can do now. */
  todo: string;
}

export function endWords(session: SessionView): EndWords {
  const code = session.reason?.code ?? '';
  if (code === 'completed') {
    return {
      success: true,
      title: 'You are signed in',
      text: `${session.provider.name} has its credential. It is sealed and stored; it can be opened by ${credentialOwner(session)}.`,
      todo: 'Nothing is left to do here. You can close this page.',
    };
  }
  if (cancelledBy(session)?.kind === 'end_user') {
    return {
      success: false,
      title: 'You cancelled the sign-in',
      text: 'No credential was kept.',
      todo: 'To sign in after all, ask for a new link.',
    };
  }
  const known = ENDS[code];
  const operator = session.operator.name;
  return {
    success: false,
    title: known?.title ?? 'The sign-in did not work',
    text: sentence(session.reason?.message || 'The server gave no reason'),
    todo: (known?.todo ?? TRY_AGAIN).replaceAll('{operator}', operator),
  };
}

const TRY_AGAIN =
  'Ask for a new link and try again. If it happens again, send {operator} the session number below.';
const FOR_THE_OPERATOR = 'This is for {operator} to mend: send them the session number below.';

const ENDS: Readonly<Record<string, { title: string; todo: string }>> = {
  cancelled: {
    title: 'The sign-in was cancelled',
    todo: 'No credential was kept. To sign in after all, ask for a new link.',
  },
  timed_out: {
    title: 'The time is over',
    todo: 'No credential was kept. Ask for a new link, and for more time if you need it.',
  },
  too_long: {
    title: 'The time is over',
    todo: 'No credential was kept. Ask for a new link to try again.',
  },
  nobody_came: {
    title: 'Nobody came',
    todo: 'The sign-in was not begun. Ask for a new link, and open it when you are there.',
  },
  idle: {
    title: 'The room was left alone',
    todo: 'No credential was kept. To sign in after all, ask for a new link.',
  },
  image_refused: { title: 'The room could not be built', todo: FOR_THE_OPERATOR },
  vm_not_started: { title: 'The room could not be started', todo: FOR_THE_OPERATOR },
  vm_exited: { title: 'The room stopped by itself', todo: TRY_AGAIN },
  agent_silent: { title: 'The room does not answer', todo: TRY_AGAIN },
  guest_link_failed: { title: 'The line to the room broke', todo: TRY_AGAIN },
  guest_broke_protocol: { title: 'The room misbehaved and was closed', todo: TRY_AGAIN },
  vm_stopped: { title: 'The room stood still', todo: TRY_AGAIN },
  guest_stalled: { title: 'The room got stuck', todo: TRY_AGAIN },
  file_not_injected: { title: 'A file could not be put into the room', todo: FOR_THE_OPERATOR },
  service_failed: { title: 'Something in the room failed', todo: TRY_AGAIN },
  cli_exited: {
    title: 'The tool ended before you were signed in',
    todo: 'No credential was kept. What the tool said stands above. To sign in after all, ask for a new link.',
  },
  no_sign_in_url: { title: 'The tool never asked you to sign in', todo: FOR_THE_OPERATOR },
  sign_in_refused: {
    title: 'The sign-in was turned down',
    todo: 'No credential was kept. Ask for a new link when you want to try again.',
  },
  credential_refused: { title: 'The credential was not what it should be', todo: TRY_AGAIN },
  credential_not_stored: {
    title: 'The credential could not be stored',
    todo: 'Nothing was kept. Tell {operator}, then ask for a new link and sign in again.',
  },
  runner_died: { title: 'The room was lost', todo: TRY_AGAIN },
  runner_silent: { title: 'The room was lost', todo: TRY_AGAIN },
  state_not_stored: { title: 'The sign-in could not be recorded', todo: FOR_THE_OPERATOR },
  controller_stopped: {
    title: 'Anteroom was stopped',
    todo: 'No credential was kept. When {operator} has started it again, ask for a new link.',
  },
};

/** What became of the room, one sentence. */
export function roomWords(session: SessionView): string {
  if (session.isolation === 'none') {
    return session.teardown === 'torn_down' ? 'The desktop was closed.' : 'The desktop is being closed…';
  }
  if (session.teardown !== 'torn_down') return 'The room is being destroyed…';
  const left = session.leftovers ?? [];
  return left.length === 0
    ? 'The room is destroyed, and nothing of it is left.'
    : `The room is destroyed, but something is left: ${left.map(({ kind, what }) => `${kind} ${what}`).join('; ')}.`;
}

/** A sentence of the server's, for display: a capital first, a full stop last. */
export function sentence(text: string): string {
  const trimmed = text.trim();
  if (trimmed === '') return '';
  const [first = '', ...rest] = trimmed;
  return first.toUpperCase() + rest.join('') + (/[.!?…]$/.test(trimmed) ? '' : '.');
}
