// Keeps the guest's keys in step with the end user's: which are down, and that none stays down.

import { decideKey, type KeyPress } from './keyboard';
import { MAX_TEXT_BYTES, splitText, type InputMessage } from './messages';

/** Whether the browser may still act on the event. */
export interface KeyResult {
  messages: InputMessage[];
  /** True when the browser's own action must not happen. */
  handled: boolean;
}

export class KeyEncoder {
  readonly #down = new Set<string>();

  press(press: KeyPress): KeyResult {
    // Windows reports AltGr as left control and AltGraph: the control is no command then.
    const messages = press.key === 'AltGraph' ? this.#releaseCodes(['ControlLeft', 'AltRight']) : [];
    const decision = decideKey(press);
    switch (decision.kind) {
      case 'browser':
        return { messages, handled: false };
      case 'none':
        return { messages, handled: true };
      case 'text':
        return { messages: [...messages, ...this.text(decision.text)], handled: true };
      case 'key':
        // A held key repeats: the guest gets each press, and decides.
        this.#down.add(decision.code);
        messages.push({ type: 'key', code: decision.code, pressed: true });
        return { messages, handled: true };
    }
  }

  release(code: string): KeyResult {
    if (!this.#down.has(code)) return { messages: [], handled: false };
    const codes = [code];
    // macOS reports no other key's release while Meta is down.
    if (code.startsWith('Meta')) codes.push(...[...this.#down].filter((held) => !MODIFIERS.has(held)));
    return { messages: this.#releaseCodes(codes), handled: true };
  }

  /** Text, typed with no modifier held: the guest looks up each character by itself. */
  text(text: string): InputMessage[] {
    const held = [...this.#down].filter((code) => MODIFIERS.has(code));
    const key = (pressed: boolean) => (code: string): InputMessage => ({ type: 'key', code, pressed });
    // The guest refuses control characters in text.
    const printable = [...text].filter((character) => !/\p{Cc}/u.test(character)).join('');
    if (printable === '') return [];
    return [
      ...held.map(key(false)),
      ...splitText(printable, MAX_TEXT_BYTES).map((part): InputMessage => ({ type: 'text', text: part })),
      ...held.map(key(true)),
    ];
  }

  /** Forgets all keys; one message to the guest, with the buttons. */
  releaseAll(): void {
    this.#down.clear();
  }

  #releaseCodes(codes: string[]): InputMessage[] {
    return codes
      .filter((code) => this.#down.delete(code))
      .map((code) => ({ type: 'key', code, pressed: false }));
  }
}

const MODIFIERS: ReadonlySet<string> = new Set([
  'ControlLeft', 'ControlRight', 'ShiftLeft', 'ShiftRight', 'AltLeft', 'AltRight', 'MetaLeft', 'MetaRight',
]);
