// The session's changes as they happen, over server-sent events; survives lost connections.

import { Problem, type ViewerApi } from './api';
import type { SessionView } from './session';

export interface FeedHandlers {
  onSession: (session: SessionView) => void;
  /** Whether the server can be heard right now. */
  onOnline: (online: boolean) => void;
  /** The server refuses to show this session: the feed has stopped. */
  onRefused: (problem: Problem) => void;
}

const RETRY_MS = 1_500;

export class SessionFeed {
  readonly #api: ViewerApi;
  readonly #handlers: FeedHandlers;
  #source: EventSource | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;
  /** The events came until now. */
  #heard = false;
  #stopped = false;

  constructor(api: ViewerApi, handlers: FeedHandlers) {
    this.#api = api;
    this.#handlers = handlers;
  }

  /** Reads the session once, then follows it. */
  async start(): Promise<void> {
    try {
      const session = await this.#api.session();
      if (this.#stopped) return;
      this.#handlers.onOnline(true);
      this.#handlers.onSession(session);
      this.#follow();
    } catch (error) {
      if (this.#stopped) return;
      if (error instanceof Problem && error.status >= 400 && error.status < 500) {
        this.stop();
        this.#handlers.onRefused(error);
        return;
      }
      this.#retry();
    }
  }

  stop(): void {
    this.#stopped = true;
    this.#source?.close();
    clearTimeout(this.#timer);
  }

  #follow(): void {
    if (this.#stopped) return;
    const source = new EventSource(this.#api.eventsUrl);
    this.#source = source;
    source.addEventListener('open', () => {
      this.#heard = true;
      this.#handlers.onOnline(true);
    });
    source.addEventListener('session', (event) => {
      this.#handlers.onSession(JSON.parse((event as MessageEvent<string>).data) as SessionView);
    });
    source.addEventListener('error', () => {
      // EventSource would retry by itself, but never says why it fails; asking anew does. Where the link
      // was revoked, the answer is there at once.
      source.close();
      if (this.#source !== source) return;
      const soon = this.#heard;
      this.#heard = false;
      this.#retry(soon ? 0 : RETRY_MS);
    });
  }

  #retry(after = RETRY_MS): void {
    if (this.#stopped) return;
    if (after > 0) this.#handlers.onOnline(false);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => void this.start(), after);
  }
}
