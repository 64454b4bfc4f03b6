// The tool's terminal on screen. Loaded only when it is asked for: xterm.js is larger than the rest.

import { Terminal } from '@xterm/xterm';
import '@xterm/xterm/css/xterm.css';

import { element, setText } from '../dom';
import { defineSheetStyle } from './sheet-style';

/** As the server draws it. */
const COLUMNS = 120;
const ROWS = 36;

/** How often the text for screen readers follows at most, in milliseconds. */
const READ_EVERY_MS = 500;

export interface TerminalScreenHandlers {
  /** Keys and pastes, as the tool takes them. */
  onTyped: (text: string) => void;
  /** The end user pressed Ctrl+Alt+M: the keyboard should go elsewhere. */
  onLeave: () => void;
}

export class TerminalScreen {
  readonly #terminal: Terminal;
  /** The same as text: the drawn rows are hidden from screen readers. */
  readonly #text = element('pre', { class: 'visually-hidden' });
  #reading: ReturnType<typeof setTimeout> | undefined;
  #typing = false;

  constructor(parent: HTMLElement, handlers: TerminalScreenHandlers) {
    defineSheetStyle();
    this.#terminal = new Terminal({
      cols: COLUMNS,
      rows: ROWS,
      scrollback: 0,
      disableStdin: true,
      cursorBlink: false,
      fontFamily: 'ui-monospace, "DejaVu Sans Mono", "Liberation Mono", monospace',
      fontSize: 13,
      // Tools choose their colours for grounds that may not be ours.
      minimumContrastRatio: 4.5,
      theme: { background: '#0b0e13', foreground: '#eaf0f5', cursor: '#4fc3b5', selectionBackground: '#2f5f72' },
    });
    // The server draws no links. Should one come all the same, it is text.
    this.#terminal.parser.registerOscHandler(8, () => true);
    // There is nothing to scroll back to, and xterm.js would make arrow keys of the wheel.
    this.#terminal.attachCustomWheelEventHandler(() => false);
    this.#terminal.attachCustomKeyEventHandler((event) => this.#takesKey(event, handlers.onLeave));
    this.#terminal.onData(handlers.onTyped);
    this.#terminal.onWriteParsed(() => this.#readSoon());
    parent.append(this.#text);
    this.#terminal.open(parent);
    this.typing = false;
  }

  /** Whether keys go to the tool. */
  get typing(): boolean {
    return this.#typing;
  }

  set typing(typing: boolean) {
    this.#typing = typing;
    this.#terminal.options.disableStdin = !typing;
    // What takes no keys is no stop for the Tab key.
    if (this.#terminal.textarea) this.#terminal.textarea.tabIndex = typing ? 0 : -1;
  }

  /** An empty screen, as a new connection draws on. */
  reset(): void {
    this.#terminal.reset();
  }

  draw(bytes: Uint8Array): void {
    this.#terminal.write(bytes);
  }

  focus(): void {
    this.#terminal.focus();
  }

  close(): void {
    clearTimeout(this.#reading);
    this.#text.remove();
    this.#terminal.dispose();
  }

  /** Without typing every key keeps its meaning in the page. */
  #takesKey(event: KeyboardEvent, onLeave: () => void): boolean {
    if (!this.#typing) return false;
    if (!(event.code === 'KeyM' && event.ctrlKey && event.altKey)) return true;
    event.preventDefault();
    if (event.type === 'keydown') onLeave();
    return false;
  }

  #readSoon(): void {
    this.#reading ??= setTimeout(() => {
      this.#reading = undefined;
      const { active } = this.#terminal.buffer;
      const rows = Array.from({ length: ROWS }, (_, row) => active.getLine(row)?.translateToString(true) ?? '');
      setText(this.#text, rows.join('\n').trimEnd());
    }, READ_EVERY_MS);
  }
}
