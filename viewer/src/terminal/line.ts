// The line to the tool's terminal: bytes both ways, and connected again when it drops.

import { shownState, step, type ConnectionState, type LinkAction, type LinkEvent, type LinkState } from '../player/reconnect';

export interface TerminalLineHandlers {
  /** A new connection: it draws on an empty screen. */
  onOpen: () => void;
  onDrawing: (bytes: Uint8Array) => void;
  onState: (state: ConnectionState) => void;
}

const TICK_MS = 250;
/** The server takes 64 KiB in one message. */
const PIECE = 16 * 1024;

export class TerminalLine {
  readonly #path: string;
  readonly #handlers: TerminalLineHandlers;
  #link: LinkState = { name: 'idle' };
  #socket: WebSocket | undefined;
  #timer: ReturnType<typeof setInterval> | undefined;
  #wasConnected = false;

  /** Nothing is connected before `start`. */
  constructor(path: string, handlers: TerminalLineHandlers) {
    this.#path = path;
    this.#handlers = handlers;
  }

  start(): void {
    this.#run({ type: 'start' });
  }

  stop(): void {
    this.#run({ type: 'stop' });
    this.#wasConnected = false;
  }

  /** Something changed that makes a new attempt worthwhile: do not wait for the next one. */
  retryNow(): void {
    this.#run({ type: 'nudge' });
  }

  /** What is typed while nothing is connected is lost, as it would be seen nowhere. */
  send(text: string): void {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    const bytes = new TextEncoder().encode(text);
    for (let at = 0; at < bytes.length; at += PIECE) this.#socket.send(bytes.slice(at, at + PIECE));
  }

  #run(event: LinkEvent): void {
    const { state, action } = step(this.#link, event, performance.now());
    this.#link = state;
    this.#act(action);
    if (state.name === 'connected') this.#wasConnected = true;
    this.#handlers.onState(shownState(state, this.#wasConnected, 0));
  }

  #act(action: LinkAction): void {
    if (action === 'none') return;
    const old = this.#socket;
    this.#socket = undefined;
    old?.close();
    if (action === 'open') this.#open();
    if (this.#link.name === 'idle') {
      clearInterval(this.#timer);
      this.#timer = undefined;
    } else {
      this.#timer ??= setInterval(() => this.#run({ type: 'tick' }), TICK_MS);
    }
  }

  #open(): void {
    const address = new URL(this.#path, location.href);
    address.protocol = address.protocol === 'https:' ? 'wss:' : 'ws:';
    const socket = new WebSocket(address);
    socket.binaryType = 'arraybuffer';
    this.#socket = socket;
    const on = <K extends keyof WebSocketEventMap>(type: K, act: (event: WebSocketEventMap[K]) => void) =>
      socket.addEventListener(type, (event) => {
        if (this.#socket === socket) act(event);
      });
    on('open', () => {
      this.#handlers.onOpen();
      this.#run({ type: 'up' });
    });
    on('message', ({ data }) => {
      if (data instanceof ArrayBuffer) this.#handlers.onDrawing(new Uint8Array(data));
    });
    on('close', () => this.#run({ type: 'failed' }));
  }
}
