// The panel around the tool's terminal: what it is, whether one types in it, and the way out.

import { element, icon, setText } from '../dom';
import type { ConnectionState } from '../player/reconnect';
import { TerminalLine } from './line';
import type { TerminalScreen } from './screen';

export interface TerminalPanelHandlers {
  /** It was closed in the panel itself. */
  onClose: () => void;
  /** The keyboard should go elsewhere. */
  onLeave: () => void;
}

export class TerminalPanel {
  readonly root: HTMLElement;
  readonly #handlers: TerminalPanelHandlers;
  readonly #line: TerminalLine;
  readonly #state = element('p', { class: 'terminal-state', role: 'status' });
  readonly #notice = element('p', { class: 'terminal-notice', role: 'alert', hidden: true });
  readonly #hint = element('p', { class: 'terminal-hint', hidden: true },
    'What you type goes to the tool.', element('span', { class: 'with-keys' }, ' Press Ctrl+Alt+M to return the keyboard to this page.'));
  readonly #typing = element('input', { type: 'checkbox', role: 'switch', onchange: () => this.#setTyping(this.#typing.checked, true) });
  readonly #close: HTMLButtonElement;
  // Its own stop for the Tab key, so that it can be scrolled without a mouse.
  readonly #ground = element('div', { class: 'terminal-ground', tabIndex: 0, role: 'group', 'aria-label': 'What the terminal shows' });
  #screen: TerminalScreen | undefined;
  #open = false;

  constructor(path: string, handlers: TerminalPanelHandlers) {
    this.#handlers = handlers;
    this.#line = new TerminalLine(path, {
      onOpen: () => this.#screen?.reset(),
      onDrawing: (bytes) => this.#screen?.draw(bytes),
      onState: (state) => setText(this.#state, lineLabel(state)),
    });
    this.#close = element('button', { type: 'button', class: 'tool', title: 'Close the terminal', onclick: () => handlers.onClose() },
      icon('cross'), element('span', { class: 'visually-hidden' }, 'Close the terminal'));
    this.root = element('section', { class: 'terminal-panel', id: 'terminal', hidden: true, 'aria-labelledby': 'terminal-title' },
      element('header', { class: 'terminal-bar' },
        element('h2', { id: 'terminal-title' }, 'Terminal'),
        this.#state,
        element('label', { class: 'switch' }, this.#typing, 'Let me type'),
        this.#close),
      this.#notice, this.#hint, this.#ground);
  }

  get isOpen(): boolean {
    return this.#open;
  }

  /** Shows it and connects; `typing` has the keys go to the tool at once. */
  open(typing: boolean): void {
    this.#open = true;
    this.root.hidden = false;
    this.#typing.checked = typing;
    this.#setTyping(typing, typing);
    if (!this.#screen) void this.#load(typing);
  }

  /** Nothing stays connected, and the next time nobody types by accident. */
  close(): void {
    this.#open = false;
    this.root.hidden = true;
    this.#line.stop();
    this.#screen?.close();
    this.#screen = undefined;
  }

  /** What the end user has to do in it, if anything; then it cannot be closed. */
  demand(instructions: string | undefined, closable: boolean): void {
    this.#notice.hidden = instructions === undefined;
    setText(this.#notice, instructions ?? '');
    this.#close.hidden = !closable;
  }

  retryNow(): void {
    this.#line.retryNow();
  }

  focus(): void {
    if (this.#screen?.typing) this.#screen.focus();
    else this.#ground.focus({ preventScroll: true });
  }

  async #load(focus: boolean): Promise<void> {
    setText(this.#state, 'Loading');
    try {
      const { TerminalScreen } = await import('./screen');
      if (!this.#open || this.#screen) return;
      this.#screen = new TerminalScreen(this.#ground, {
        onTyped: (text) => this.#line.send(text),
        onLeave: () => this.#handlers.onLeave(),
      });
    } catch (error) {
      console.warn('the terminal could not be loaded:', error);
      setText(this.#state, 'The terminal could not be loaded. Reload this page.');
      return;
    }
    this.#setTyping(this.#typing.checked, focus);
    this.#line.start();
  }

  #setTyping(typing: boolean, focus: boolean): void {
    this.#hint.hidden = !typing;
    if (!this.#screen) return;
    this.#screen.typing = typing;
    if (typing && focus) this.#screen.focus();
  }
}

function lineLabel(state: ConnectionState): string {
  switch (state) {
    case 'off':
    case 'connected':
      return '';
    case 'connecting':
      return 'Connecting';
    case 'reconnecting':
    case 'unreachable':
      return 'Reconnecting';
  }
}
