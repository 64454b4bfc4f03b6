// <anteroom-player>: shows a guest's desktop and sends it the end user's input.
//
//   player.signal = async (offerSdp, abort) => answerSdp;   how to reach the guest
//   player.live = true;                                      connect, and stay connected
//   player.inputEnabled = true;                              from now on keys and clicks count
//
// Events: connectionchange, firstframe, statschange, leavekeyboard (see AnteroomPlayerEventMap).

import { InputCapture } from './input';
import { cleanPaste, MAX_PASTE_BYTES, parseCursorMessage, utf8Length, type CursorMessage } from './messages';
import { Peer, type Signal } from './peer';
import { shownState, step, type ConnectionState, type LinkAction, type LinkEvent, type LinkState } from './reconnect';
import type { PlayerStats } from './stats';
import styles from './anteroom-player.css?inline';

export type { Signal } from './peer';
export type { ConnectionState } from './reconnect';
export type { PlayerStats } from './stats';

export interface AnteroomPlayerEventMap {
  connectionchange: CustomEvent<{ state: ConnectionState }>;
  /** The first decoded frame is on screen; `at` is milliseconds since the Unix epoch. */
  firstframe: CustomEvent<{ at: number; width: number; height: number }>;
  /** Once a second while connected. */
  statschange: CustomEvent<PlayerStats>;
  /** The end user pressed Ctrl+Alt+M: the keyboard should go elsewhere. */
  leavekeyboard: CustomEvent<void>;
}

const TICK_MS = 250;
const TICKS_PER_STATS = 4;

export class AnteroomPlayer extends HTMLElement {
  /** How to reach the guest. Set it before `live`. */
  signal: Signal | undefined;

  readonly #video = document.createElement('video');
  readonly #keyboard = document.createElement('textarea');
  #link: LinkState = { name: 'idle' };
  #peer: Peer | undefined;
  #input: InputCapture | undefined;
  #stats: PlayerStats | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;
  #ticks = 0;
  #wasConnected = false;
  /** Offers that the guest has answered since it was last connected. */
  #answered = 0;
  #shown: ConnectionState = 'off';
  #sawFrame = false;
  #live = false;
  #inputEnabled = false;

  constructor() {
    super();
    const root = this.attachShadow({ mode: 'open', delegatesFocus: true });
    // A sheet made by script: the page's policy allows no inline styles.
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(styles);
    root.adoptedStyleSheets = [sheet];
    Object.assign(this.#video, { autoplay: true, muted: true, playsInline: true, disablePictureInPicture: true });
    this.#video.setAttribute('aria-hidden', 'true');
    for (const [name, value] of Object.entries(KEYBOARD_ATTRIBUTES)) this.#keyboard.setAttribute(name, value);
    this.#keyboard.disabled = true;
    root.append(this.#video, this.#keyboard);
  }

  /** Connect, and connect again whenever it breaks, until false. */
  get live(): boolean {
    return this.#live;
  }

  set live(live: boolean) {
    if (live === this.#live) return;
    this.#live = live;
    this.#run({ type: live ? 'start' : 'stop' });
  }

  /** Whether the end user's keys and clicks reach the guest. */
  get inputEnabled(): boolean {
    return this.#inputEnabled;
  }

  set inputEnabled(enabled: boolean) {
    if (enabled === this.#inputEnabled) return;
    this.#inputEnabled = enabled;
    this.#keyboard.disabled = !enabled;
    if (enabled) {
      this.#input = new InputCapture({
        video: this.#video,
        keyboard: this.#keyboard,
        send: (message) => void this.#peer?.send(message),
        onLeave: () => this.#emit('leavekeyboard', undefined),
      });
    } else {
      this.#input?.close();
      this.#input = undefined;
    }
  }

  /** Whether a frame has been shown since the element was made. */
  get hasPicture(): boolean {
    return this.#sawFrame;
  }

  get connectionState(): ConnectionState {
    return this.#shown;
  }

  /** The newest figures; undefined before the first second. */
  get stats(): PlayerStats | undefined {
    return this.#stats;
  }

  /** Pastes into the guest's focused field. Gives false when it could not be sent. */
  paste(text: string): boolean {
    const cleaned = cleanPaste(text);
    if (!this.#inputEnabled || cleaned === '' || utf8Length(cleaned) > MAX_PASTE_BYTES) return false;
    return this.#peer?.send({ type: 'paste', text: cleaned }) ?? false;
  }

  /** Something changed that makes a new attempt worthwhile: do not wait for the next one. */
  retryNow(): void {
    this.#run({ type: 'nudge' });
  }

  override focus(options?: FocusOptions): void {
    this.#keyboard.focus(options);
  }

  disconnectedCallback(): void {
    queueMicrotask(() => {
      // Only moved to another place in the page.
      if (this.isConnected) return;
      this.inputEnabled = false;
      this.live = false;
    });
  }

  #run(event: LinkEvent): void {
    const { state, action } = step(this.#link, event, performance.now());
    this.#link = state;
    this.#act(action);
    this.#announce();
  }

  #act(action: LinkAction): void {
    if (action === 'none') return;
    this.#input?.releaseAll();
    this.#peer?.close();
    this.#peer = undefined;
    if (action === 'open') this.#open();
    if (this.#link.name === 'idle') {
      clearInterval(this.#timer);
      this.#timer = undefined;
    } else {
      this.#timer ??= setInterval(() => this.#tick(), TICK_MS);
    }
  }

  #open(): void {
    const { signal } = this;
    if (!signal) throw new Error('anteroom-player: set signal before live');
    const current = (act: () => void) => {
      if (this.#peer === peer) act();
    };
    const peer = new Peer({
      onTrack: (stream) => current(() => this.#show(stream)),
      onConnection: (type) => current(() => this.#run({ type })),
      onInputOpen: () => current(() => void peer.send({ type: 'release_all' })),
      onCursor: (data) => current(() => this.#setCursor(parseCursorMessage(data))),
    });
    this.#peer = peer;
    // Whoever signals reports why it failed; here it only means to try again later.
    peer.open(signal).then(
      () => current(() => { this.#answered += 1; }),
      () => current(() => this.#run({ type: 'failed' })),
    );
  }

  #show(stream: MediaStream): void {
    this.#video.srcObject = stream;
    void this.#video.play().catch(() => undefined);
    if (this.#sawFrame) return;
    this.#video.requestVideoFrameCallback((now, frame) => {
      if (this.#sawFrame) return;
      this.#sawFrame = true;
      this.#emit('firstframe', { at: performance.timeOrigin + now, width: frame.width, height: frame.height });
    });
  }

  #setCursor(message: CursorMessage | undefined): void {
    if (!message) return;
    if (message.type === 'cursor_hidden') {
      this.#video.style.cursor = 'none';
      return;
    }
    const { hotX, hotY, width, height, pngBase64 } = message;
    const x = Math.min(hotX, Math.max(width - 1, 0));
    const y = Math.min(hotY, Math.max(height - 1, 0));
    this.#video.style.cursor = `url("data:image/png;base64,${pngBase64}") ${x} ${y}, default`;
  }

  #tick(): void {
    this.#run({ type: 'tick' });
    this.#ticks += 1;
    if (this.#link.name === 'connected' && this.#ticks % TICKS_PER_STATS === 0) void this.#readStats();
  }

  async #readStats(): Promise<void> {
    const peer = this.#peer;
    const stats = await peer?.stats();
    if (!stats || peer !== this.#peer) return;
    this.#stats = stats;
    this.#emit('statschange', stats);
  }

  #announce(): void {
    if (this.#link.name === 'connected') {
      this.#wasConnected = true;
      this.#answered = 0;
    }
    const shown = shownState(this.#link, this.#wasConnected, this.#answered);
    if (shown === this.#shown) return;
    this.#shown = shown;
    this.#emit('connectionchange', { state: shown });
  }

  #emit<K extends keyof AnteroomPlayerEventMap>(type: K, detail: AnteroomPlayerEventMap[K]['detail']): void {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** Listeners know what they get. */
export interface AnteroomPlayer {
  addEventListener<K extends keyof AnteroomPlayerEventMap>(
    type: K, listener: (event: AnteroomPlayerEventMap[K]) => void, options?: boolean | AddEventListenerOptions): void;
  addEventListener(
    type: string, listener: EventListenerOrEventListenerObject, options?: boolean | AddEventListenerOptions): void;
}

const KEYBOARD_ATTRIBUTES = {
  'aria-label': 'Remote desktop. Your keys go to the desktop; press Control Alt M to return them to this page.',
  autocapitalize: 'off',
  autocomplete: 'off',
  autocorrect: 'off',
  spellcheck: 'false',
} as const;

declare global {
  interface HTMLElementTagNameMap {
    'anteroom-player': AnteroomPlayer;
  }
}

export function defineAnteroomPlayer(): void {
  if (!customElements.get('anteroom-player')) customElements.define('anteroom-player', AnteroomPlayer);
}
