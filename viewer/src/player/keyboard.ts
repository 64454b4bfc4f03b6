// Whether a key press goes to the guest as a physical key or as text. The guest has a US layout;
// an end user with another one presses keys that mean something else there.

/** What of a KeyboardEvent counts. */
export interface KeyPress {
  code: string;
  key: string;
  shift: boolean;
  control: boolean;
  alt: boolean;
  meta: boolean;
  /** AltGr: a level of the layout, not a command key. */
  altGraph: boolean;
  /** An input method takes this key. */
  composing: boolean;
}

export type KeyDecision =
  /** Send the physical key. */
  | { kind: 'key'; code: string }
  /** Send these characters. */
  | { kind: 'text'; text: string }
  /** Let the browser have it: a composition, a dead key, a key without a place. */
  | { kind: 'browser' }
  /** Neither the guest nor the browser gets it. */
  | { kind: 'none' };

export function decideKey(press: KeyPress): KeyDecision {
  if (press.composing || press.key === 'Process' || press.key === 'Dead') return { kind: 'browser' };
  // The lock keys act on this side only: their effect arrives as the characters they give.
  if (LOCK_KEYS.has(press.code) || press.key === 'AltGraph') return { kind: 'none' };
  const character = singleCharacter(press.key);
  if (character !== undefined) {
    const command = (press.control || press.meta || press.alt) && !press.altGraph;
    if (!command && usCharacter(press.code, press.shift) !== character) {
      return { kind: 'text', text: character };
    }
  }
  if (GUEST_KEYS.has(press.code)) return { kind: 'key', code: press.code };
  // Screen keyboards give no code; what they type arrives as an input event.
  return press.code === '' || press.key === 'Unidentified' ? { kind: 'browser' } : { kind: 'none' };
}

function singleCharacter(key: string): string | undefined {
  const [first, ...more] = key;
  return first !== undefined && more.length === 0 ? first : undefined;
}

/** The character that a US layout gives; undefined for a key that gives none. */
export function usCharacter(code: string, shift: boolean): string | undefined {
  const letter = /^Key([A-Z])$/.exec(code)?.[1];
  if (letter) return shift ? letter : letter.toLowerCase();
  const numpad = US_NUMPAD[code];
  if (numpad !== undefined) return numpad;
  return US_PAIRS[code]?.[shift ? 1 : 0];
}

const US_PAIRS: Readonly<Record<string, string>> = {
  Backquote: '`~',
  Digit1: '1!',
  Digit2: '2@',
  Digit3: '3#',
  Digit4: '4$',
  Digit5: '5%',
  Digit6: '6^',
  Digit7: '7&',
  Digit8: '8*',
  Digit9: '9(',
  Digit0: '0)',
  Minus: '-_',
  Equal: '=+',
  BracketLeft: '[{',
  BracketRight: ']}',
  Backslash: '\\|',
  Semicolon: ';:',
  Quote: '\'"',
  Comma: ',<',
  Period: '.>',
  Slash: '/?',
  Space: '  ',
};

// Only what the keypad gives whether its lock is on or off: its digits go as text.
const US_NUMPAD: Readonly<Record<string, string>> = {
  NumpadAdd: '+',
  NumpadSubtract: '-',
  NumpadMultiply: '*',
  NumpadDivide: '/',
};

const LOCK_KEYS: ReadonlySet<string> = new Set(['CapsLock', 'NumLock', 'ScrollLock']);

const LETTERS = [...'ABCDEFGHIJKLMNOPQRSTUVWXYZ'].map((letter) => `Key${letter}`);
const FUNCTION_KEYS = Array.from({ length: 12 }, (_, index) => `F${index + 1}`);
const NUMPAD_DIGITS = Array.from({ length: 10 }, (_, digit) => `Numpad${digit}`);

/** Every key the guest knows. It refuses others, so they are not sent. */
export const GUEST_KEYS: ReadonlySet<string> = new Set([
  ...LETTERS,
  ...Object.keys(US_PAIRS),
  ...Object.keys(US_NUMPAD),
  ...FUNCTION_KEYS,
  ...NUMPAD_DIGITS,
  'NumpadDecimal', 'NumpadEnter', 'NumpadEqual', 'NumpadComma',
  'Escape', 'Backspace', 'Tab', 'Enter', 'ContextMenu', 'PrintScreen', 'Pause',
  'ControlLeft', 'ControlRight', 'ShiftLeft', 'ShiftRight', 'AltLeft', 'AltRight', 'MetaLeft', 'MetaRight',
  'Home', 'End', 'PageUp', 'PageDown', 'Insert', 'Delete',
  'ArrowUp', 'ArrowDown', 'ArrowLeft', 'ArrowRight',
  'IntlBackslash', 'IntlRo', 'IntlYen', 'Convert', 'NonConvert', 'KanaMode', 'Lang1', 'Lang2',
]);
