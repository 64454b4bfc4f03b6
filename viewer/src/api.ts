// The server's viewer API. Same origin; the cookie says who we are.

import type { SessionView } from './session';

/** What the server answered instead of what was asked for (RFC 9457). */
export class Problem extends Error {
  constructor(
    readonly status: number,
    readonly title: string,
    readonly detail: string,
    readonly code: string,
    /** When it happened, in milliseconds since the Unix epoch. */
    readonly at?: number,
  ) {
    super(detail || title);
    this.name = 'Problem';
  }
}

export class ViewerApi {
  readonly #session: string;

  constructor(readonly sessionId: string) {
    this.#session = `/api/viewer/session/${encodeURIComponent(sessionId)}`;
  }

  /** The address of the session's event stream. */
  get eventsUrl(): string {
    return `${this.#session}/events`;
  }

  /** The address of the tool's terminal, for a WebSocket. */
  get terminalUrl(): string {
    return `${this.#session}/terminal`;
  }

  /** Turns the link's one-use secret into a cookie. */
  async exchange(secret: string): Promise<void> {
    await request('POST', '/api/viewer/exchange', { sessionId: this.sessionId, secret });
  }

  async session(): Promise<SessionView> {
    return (await (await request('GET', this.#session)).json()) as SessionView;
  }

  async cancel(): Promise<void> {
    await request('POST', `${this.#session}/cancel`, {});
  }

  /** Brings the code that the last page of the sign-in shows. */
  async enterCode(code: string): Promise<void> {
    await request('POST', `${this.#session}/code`, { code });
  }

  /** Has the desktop's browser show the sign-in page. */
  async openSignInPage(): Promise<void> {
    await request('POST', `${this.#session}/open-sign-in-page`, {});
  }

  /** Sends the offer; gives the answer's SDP. */
  async offer(sdp: string, abort: AbortSignal): Promise<string> {
    const path = `/api/webrtc/session/${encodeURIComponent(this.sessionId)}/offer`;
    const answer = (await (await request('POST', path, { type: 'offer', sdp }, abort)).json()) as { sdp: string };
    return answer.sdp;
  }
}

async function request(method: string, path: string, body?: unknown, abort?: AbortSignal): Promise<Response> {
  const response = await fetch(path, {
    method,
    credentials: 'same-origin',
    cache: 'no-store',
    headers: {
      Accept: 'application/json, application/problem+json',
      ...(body !== undefined && { 'Content-Type': 'application/json' }),
    },
    ...(body !== undefined && { body: JSON.stringify(body) }),
    ...(abort && { signal: abort }),
  });
  if (!response.ok) throw await readProblem(response);
  return response;
}

async function readProblem(response: Response): Promise<Problem> {
  const text = (value: unknown): string => (typeof value === 'string' ? value : '');
  let value: Record<string, unknown> = {};
  try {
    value = (await response.json()) as Record<string, unknown>;
  } catch {
    // Something in between answered, not the server: the status is all there is.
  }
  const title = text(value['title']) || `The server answered ${response.status}`;
  const at = value['at'];
  return new Problem(response.status, title, text(value['detail']), text(value['code']), typeof at === 'number' ? at : undefined);
}
