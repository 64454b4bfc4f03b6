// A session as the server shows it to its viewer.

export type StateName =
  | 'requested'
  | 'booting'
  | 'preparing'
  | 'ready'
  | 'awaiting_user'
  | 'capturing'
  | 'sealed'
  | 'ended';

/** How the person signs in. */
export type Method = 'browser' | 'paste_code' | 'device_code';

/** The person's turn. */
export interface AwaitingView {
  method: Method;
  /** The page to sign in on; none where the tool asks something that its provider file does not know. */
  url?: string | null;
  /** With `device_code`: what the page asks for. */
  code?: string | null;
  /** Whether the code that the last page shows is to be brought back. */
  takesCode: boolean;
  /** Without a page: what the tool's terminal shows. */
  screen: string[];
  instructions: string;
  deadline: number;
}

export interface TimelineEntry {
  /** Milliseconds since the Unix epoch, by the server's clock, as are all times here. */
  at: number;
  kind: string;
  message: string;
  /** Of a death: why, by the evidence. */
  explanation?: Explanation;
}

export interface Explanation {
  cause: string;
  sentence: string;
  evidence: string[];
  confidence: 'certain' | 'likely' | 'unknown';
  advice?: string;
}

/** Something of the room that somebody opened. */
export interface Visit {
  at: number;
  opened: 'link' | 'picture' | 'terminal' | 'vnc';
  viewer: { by: 'link'; generation: number } | { by: 'api_key'; key: string };
}

export interface Leftover {
  kind: string;
  what: string;
}

/** What the provider's terms say of who may hold a login, as somebody read them. */
export interface Terms {
  page: string;
  /** On which day, as `2026-11-27`. */
  read: string;
  custody: 'recipient_only' | 'vault';
  /** Whether the operator may hold it all the same, by their own word. */
  overridden: boolean;
}

export interface SessionView {
  sessionId: string;
  provider: { id: string; name: string };
  operator: { name: string };
  state: StateName;
  method: Method;
  /** What the person has to do; only in their turn. */
  awaiting?: AwaitingView;
  /** Why it ended; only when it ended. */
  reason?: { code: string; message: string; detail?: { by?: { kind: 'caller' | 'end_user' | 'operator' } } };
  timeline: TimelineEntry[];
  /** What others than this viewer opened, oldest first. */
  visitsOfOthers: Visit[];
  createdAt: number;
  deadline: number;
  /** When it ends unless the person does something; only in their turn and once they came. */
  idleDeadline?: number;
  serverNow: number;
  emulated: boolean;
  isolation: 'vm' | 'none';
  /** Who can open the sealed credential; `recipient` is the caller's age recipient. */
  credential: { openableBy: 'caller' | 'operator'; recipient?: string; terms?: Terms };
  /** The host of the sign-in page, once the tool named it. */
  signInUrlHost?: string;
  /** What became of the room, once the session ended. */
  teardown?: 'tearing_down' | 'torn_down';
  leftovers?: Leftover[];
}
