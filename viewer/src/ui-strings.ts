// The texts of the viewer's pages, for each state and each end of a session. Pure.

import { cancelledBy, type SessionView, type StateName, type TimelineEntry, type Visit } from './session';

export function stateLabel(state: StateName): string {
  switch (state) {
    case 'requested':
    case 'booting':
      return 'Starting the sign-in desktop…';
    case 'preparing':
    // A session that waited for its end user waits no longer: they are looking at it.
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

/** The steps of a session that the end user sees. */
export const STEPS: readonly string[] = ['Start the desktop', 'Start the sign-in', 'You sign in', 'Save and clean up'];

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

/** Events about who is watching, not about the session itself. */
const VISITS = /^(viewer|link|links|terminal|vnc)_/;

/** The timeline without visits: a viewer need not be shown that a viewer came. */
export function sessionEvents(session: SessionView): TimelineEntry[] {
  return session.timeline.filter(({ kind }) => !VISITS.test(kind));
}

/** The last of them. */
export function latestEvent(session: SessionView): string {
  return sentence(sessionEvents(session).at(-1)?.message ?? '');
}

/** Minutes and seconds, never below zero. */
export function timeLeft(milliseconds: number): string {
  const seconds = Math.max(0, Math.ceil(milliseconds / 1000));
  const two = (value: number) => String(value).padStart(2, '0');
  const hours = Math.floor(seconds / 3600);
  const minutes = Math.floor(seconds / 60) % 60;
  return hours > 0 ? `${hours}:${two(minutes)}:${two(seconds % 60)}` : `${minutes}:${two(seconds % 60)}`;
}

/** The end user is warned when less time than this is left, in milliseconds. */
export const WARN_BELOW_MS = 60_000;

/** A warning about the nearer of two ends, `deadline` and `idle`, in milliseconds from now. */
export function timeWarning(deadline: number, idle: number | undefined, desktop: boolean): string | undefined {
  if (idle !== undefined && idle < WARN_BELOW_MS && idle < deadline) {
    const stay = desktop ? 'Move the mouse over the desktop to continue.' : 'Type in the tool’s terminal to continue.';
    return `Are you still there? This sign-in ends in less than a minute unless you do something. ${stay}`;
  }
  return deadline < WARN_BELOW_MS ? 'This sign-in ends in less than a minute.' : undefined;
}

/** The desktop runs and its picture does not arrive: what to do. */
export function unreachableMessage(operator: string): string {
  return 'The picture of the desktop does not reach you. Usually a firewall on the network blocks video (UDP). ' +
    `Try another network, such as your phone’s hotspot. If that does not help, contact ${operator}.`;
}

/** The hour and minute of a time on the server's clock, as the end user's own clock shows it. */
export function clockTime(at: number, session: SessionView, now: number): string {
  const local = new Date(at - session.serverNow + now);
  return local.toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
}

/** What others opened of this session: by an earlier link, which is closed now, or with an API key. */
export function visitNotice(session: SessionView, now: number): string | undefined {
  const visits = session.visitsOfOthers;
  const byLink = visits.filter(({ viewer }) => viewer.by === 'link');
  const byKey = visits.filter(({ viewer }) => viewer.by === 'api_key').at(-1);
  const sentences: string[] = [];
  const first = byLink.at(0);
  if (first) {
    const saw = [...new Set(byLink.map(opened).filter((name) => name !== ''))];
    const what = saw.length > 0 ? ` It was used to view ${saw.join(' and ')}.` : '';
    sentences.push(`An earlier link to this sign-in was opened at ${clockTime(first.at, session, now)}.${what} ` +
      `That link is closed now. If you did not open it, contact ${session.operator.name}.`);
  }
  if (byKey) {
    sentences.push(`Someone opened ${opened(byKey)} at ${clockTime(byKey.at, session, now)} with an API key of this server.`);
  }
  return sentences.length > 0 ? sentences.join(' ') : undefined;
}

function opened(visit: Visit): string {
  switch (visit.opened) {
    case 'link':
      return '';
    case 'picture':
      return 'the desktop';
    case 'terminal':
      return 'the terminal';
    case 'vnc':
      return 'the desktop over VNC';
  }
}

/** Who can open the sealed credential, to follow "The credential can be opened by". */
export function credentialOwner(session: SessionView): string {
  const { openableBy, recipient } = session.credential;
  if (openableBy === 'operator') return session.operator.name;
  return recipient
    ? `the holder of the key for ${shortRecipient(recipient)}, and nobody else`
    : 'whoever requested this sign-in, and nobody else';
}

/** What the tool's terms say about who may hold the login, where somebody read them. */
export function termsMessage({ provider, operator, credential }: SessionView): string | undefined {
  const { terms } = credential;
  if (!terms) return undefined;
  const read = `as read on ${terms.read} (${terms.page})`;
  if (terms.custody === 'vault') return `The terms of ${provider.name}, ${read}, allow the operator to hold your login.`;
  return terms.overridden
    ? `The terms of ${provider.name}, ${read}, allow only you to hold your login. ${operator.name} stores it nevertheless, and can open it.`
    : `The terms of ${provider.name}, ${read}, allow only you to hold your login, so the key that opens it must be yours.`;
}

/** Enough of an age recipient to recognise it. */
export function shortRecipient(recipient: string): string {
  return recipient.length <= 24 ? recipient : `${recipient.slice(0, 12)}…${recipient.slice(-8)}`;
}

export interface EndMessage {
  success: boolean;
  title: string;
  /** What happened, one or two sentences. */
  text: string;
  /** What the end user can do now. */
  todo: string;
}

export function endMessage(session: SessionView): EndMessage {
  const code = session.reason?.code ?? '';
  if (code === 'completed') {
    return {
      success: true,
      title: 'You are signed in',
      text: `${session.provider.name} is signed in. Its credential is sealed and stored. It can be opened by ${credentialOwner(session)}.`,
      todo: 'You can close this page.',
    };
  }
  if (cancelledBy(session)?.kind === 'end_user') {
    return {
      success: false,
      title: 'You cancelled the sign-in',
      text: 'No credential was saved.',
      todo: 'To sign in later, ask for a new link.',
    };
  }
  const known = ENDS[code];
  const operator = session.operator.name;
  return {
    success: false,
    title: known?.title ?? 'The sign-in failed',
    text: sentence(session.reason?.message || 'The server did not give a reason'),
    todo: (known?.todo ?? TRY_AGAIN).replaceAll('{operator}', operator),
  };
}

const TRY_AGAIN =
  'Ask for a new link and try again. If it happens again, send {operator} the session ID below.';
const FOR_THE_OPERATOR = 'Only {operator} can fix this. Send them the session ID below.';

const ENDS: Readonly<Record<string, { title: string; todo: string }>> = {
  cancelled: {
    title: 'The sign-in was cancelled',
    todo: 'No credential was saved. To sign in later, ask for a new link.',
  },
  timed_out: {
    title: 'The sign-in timed out',
    todo: 'No credential was saved. Ask for a new link, with more time if you need it.',
  },
  too_long: {
    title: 'The sign-in took too long',
    todo: 'No credential was saved. Ask for a new link to try again.',
  },
  nobody_came: {
    title: 'Nobody opened the link',
    todo: 'The sign-in never started. Ask for a new link, and open it when you are ready.',
  },
  idle: {
    title: 'The sign-in ended because nothing happened',
    todo: 'No credential was saved. To sign in later, ask for a new link.',
  },
  no_capacity: { title: 'The Anteroom server has too little memory', todo: FOR_THE_OPERATOR },
  image_refused: { title: 'The sign-in desktop’s image was rejected', todo: FOR_THE_OPERATOR },
  session_setup_failed: { title: 'The sign-in could not be set up', todo: FOR_THE_OPERATOR },
  sandbox_not_started: { title: 'The sign-in desktop could not be started', todo: FOR_THE_OPERATOR },
  sandbox_exited: { title: 'The sign-in desktop stopped unexpectedly', todo: TRY_AGAIN },
  agent_silent: { title: 'The sign-in desktop does not respond', todo: TRY_AGAIN },
  guest_link_failed: { title: 'The connection to the sign-in desktop was lost', todo: TRY_AGAIN },
  guest_broke_protocol: { title: 'The sign-in desktop misbehaved and was shut down', todo: TRY_AGAIN },
  sandbox_stopped: { title: 'The sign-in desktop stopped responding', todo: TRY_AGAIN },
  guest_stalled: { title: 'The sign-in desktop got stuck', todo: TRY_AGAIN },
  file_not_injected: { title: 'A file could not be copied to the sign-in desktop', todo: FOR_THE_OPERATOR },
  service_failed: { title: 'A program on the sign-in desktop failed', todo: TRY_AGAIN },
  cli_exited: {
    title: 'The tool ended without a sign-in',
    todo: 'No credential was saved. To sign in later, ask for a new link.',
  },
  no_sign_in_url: { title: 'The tool showed no sign-in page', todo: FOR_THE_OPERATOR },
  sign_in_refused: {
    title: 'The sign-in was rejected',
    todo: 'No credential was saved. Ask for a new link when you want to try again.',
  },
  credential_refused: { title: 'The credential was refused', todo: TRY_AGAIN },
  credential_not_stored: {
    title: 'The credential could not be stored',
    todo: 'Nothing was saved. Contact {operator}, then ask for a new link and sign in again.',
  },
  runner_died: { title: 'The sign-in desktop was lost', todo: TRY_AGAIN },
  runner_failed: { title: 'The sign-in desktop was lost', todo: TRY_AGAIN },
  runner_silent: { title: 'The sign-in desktop was lost', todo: TRY_AGAIN },
  node_lost: { title: 'The sign-in desktop was lost', todo: TRY_AGAIN },
  state_not_stored: { title: 'The sign-in could not be recorded', todo: FOR_THE_OPERATOR },
  controller_stopped: {
    title: 'The Anteroom server was stopped',
    todo: 'No credential was saved. Ask {operator} when it is running again, then ask for a new link.',
  },
};

/** The state of the teardown, one sentence. */
export function teardownMessage(session: SessionView): string {
  if (session.isolation === 'none') {
    return session.teardown === 'torn_down' ? 'The desktop was closed.' : 'The desktop is being closed…';
  }
  if (session.teardown !== 'torn_down') return 'The sign-in desktop is being destroyed…';
  const left = session.leftovers ?? [];
  return left.length === 0
    ? 'The sign-in desktop was destroyed, and a check found nothing left of it.'
    : `The sign-in desktop was destroyed, but a check found something left of it: ${left.map(({ kind, what }) => `${kind} ${what}`).join('; ')}.`;
}

/** A sentence from the server, with a capital first and a full stop last. */
export function sentence(text: string): string {
  const trimmed = text.trim();
  if (trimmed === '') return '';
  const [first = '', ...rest] = trimmed;
  return first.toUpperCase() + rest.join('') + (/[.!?…]$/.test(trimmed) ? '' : '.');
}
