import { describe, expect, it } from 'vitest';

import guestKeys from '../../crates/guest-protocol/src/keys.rs?raw';
import { KeyEncoder } from '../src/player/key-encoder';
import { decideKey, GUEST_KEYS, usCharacter, type KeyPress } from '../src/player/keyboard';

function press(code: string, key: string, more: Partial<KeyPress> = {}): KeyPress {
  return { code, key, shift: false, control: false, alt: false, meta: false, altGraph: false, composing: false, ...more };
}

describe('decideKey', () => {
  it.each([
    ['KeyA', 'a', {}],
    ['KeyA', 'A', { shift: true }],
    ['Digit2', '@', { shift: true }],
    ['Space', ' ', {}],
    ['Space', ' ', { shift: true }],
    ['Enter', 'Enter', {}],
    ['Tab', 'Tab', { shift: true }],
    ['ArrowLeft', 'ArrowLeft', {}],
    ['F5', 'F5', {}],
    ['NumpadEnter', 'Enter', {}],
    ['NumpadAdd', '+', {}],
    ['ShiftLeft', 'Shift', { shift: true }],
    ['Numpad4', 'ArrowLeft', {}],
  ])('sends %s giving %j as a key', (code, key, more) => {
    expect(decideKey(press(code, key, more))).toEqual({ kind: 'key', code });
  });

  it.each([
    ['German y', press('KeyZ', 'y'), 'y'],
    ['German umlaut', press('BracketLeft', 'ü'), 'ü'],
    ['German @ by AltGr', press('KeyQ', '@', { altGraph: true }), '@'],
    ['the same on Windows, where AltGr is Control and Alt', press('KeyQ', '@', { control: true, alt: true, altGraph: true }), '@'],
    ['French digit', press('Digit1', '1', { shift: true }), '1'],
    ['French unshifted', press('Digit2', 'é'), 'é'],
    ['Caps lock', press('KeyA', 'A'), 'A'],
    ['Caps lock with shift', press('KeyA', 'a', { shift: true }), 'a'],
    ['Cyrillic', press('KeyF', 'а'), 'а'],
    ['keypad digit', press('Numpad4', '4'), '4'],
    ['beyond the first plane', press('KeyE', '😀'), '😀'],
  ])('sends as text: %s', (_name, given, text) => {
    expect(decideKey(given)).toEqual({ kind: 'text', text });
  });

  it('keeps shortcuts on the key, whatever the layout', () => {
    expect(decideKey(press('KeyZ', 'y', { control: true }))).toEqual({ kind: 'key', code: 'KeyZ' });
    expect(decideKey(press('KeyQ', 'a', { meta: true }))).toEqual({ kind: 'key', code: 'KeyQ' });
    expect(decideKey(press('KeyF', 'ƒ', { alt: true }))).toEqual({ kind: 'key', code: 'KeyF' });
  });

  it('leaves compositions, dead keys and screen keyboards to the browser', () => {
    expect(decideKey(press('KeyN', 'Process'))).toEqual({ kind: 'browser' });
    expect(decideKey(press('KeyN', 'n', { composing: true }))).toEqual({ kind: 'browser' });
    expect(decideKey(press('BracketLeft', 'Dead'))).toEqual({ kind: 'browser' });
    expect(decideKey(press('', 'Unidentified'))).toEqual({ kind: 'browser' });
  });

  it('sends neither lock keys, nor AltGr itself, nor keys that the guest refuses', () => {
    expect(decideKey(press('CapsLock', 'CapsLock'))).toEqual({ kind: 'none' });
    expect(decideKey(press('AltRight', 'AltGraph'))).toEqual({ kind: 'none' });
    expect(decideKey(press('MediaPlayPause', 'MediaPlayPause'))).toEqual({ kind: 'none' });
  });
});

describe('the table of keys', () => {
  it('gives the characters of a US layout', () => {
    expect(usCharacter('KeyQ', true)).toBe('Q');
    expect(usCharacter('Quote', true)).toBe('"');
    expect(usCharacter('Backslash', false)).toBe('\\');
    expect(usCharacter('Escape', false)).toBeUndefined();
  });

  it('holds only keys that the guest protocol knows', () => {
    const known = new Set([...guestKeys.matchAll(/\("(\w+)", \d+\)/g)].map((match) => match[1]));
    expect(known.size).toBeGreaterThan(100);
    expect([...GUEST_KEYS].filter((code) => !known.has(code))).toEqual([]);
  });
});

describe('KeyEncoder', () => {
  const key = (code: string, pressed: boolean) => ({ type: 'key', code, pressed });

  it('releases what it pressed, and nothing else', () => {
    const keys = new KeyEncoder();
    expect(keys.press(press('KeyA', 'a')).messages).toEqual([key('KeyA', true)]);
    expect(keys.release('KeyA')).toEqual({ messages: [key('KeyA', false)], handled: true });
    expect(keys.release('KeyA')).toEqual({ messages: [], handled: false });
    keys.press(press('KeyZ', 'y'));
    expect(keys.release('KeyZ').messages).toEqual([]);
  });

  it('types text with modifiers up, and puts them back', () => {
    const keys = new KeyEncoder();
    keys.press(press('ShiftLeft', 'Shift', { shift: true }));
    expect(keys.press(press('Digit7', '/', { shift: true })).messages).toEqual([
      key('ShiftLeft', false), { type: 'text', text: '/' }, key('ShiftLeft', true),
    ]);
  });

  it('takes back the control that Windows adds to AltGr', () => {
    const keys = new KeyEncoder();
    keys.press(press('ControlLeft', 'Control', { control: true }));
    expect(keys.press(press('AltRight', 'AltGraph', { altGraph: true, control: true, alt: true })).messages)
      .toEqual([key('ControlLeft', false)]);
    expect(keys.press(press('KeyQ', '@', { altGraph: true, control: true, alt: true })).messages)
      .toEqual([{ type: 'text', text: '@' }]);
  });

  it('lets go of the others with Meta, whose releases macOS keeps to itself', () => {
    const keys = new KeyEncoder();
    keys.press(press('MetaLeft', 'Meta', { meta: true }));
    keys.press(press('KeyA', 'a', { meta: true }));
    expect(keys.release('MetaLeft').messages).toEqual([key('MetaLeft', false), key('KeyA', false)]);
  });

  it('splits long text within the limit, between characters, without control characters', () => {
    const keys = new KeyEncoder();
    const parts = keys.text(`\u001b${'é'.repeat(200)}\n`).map((message) => (message.type === 'text' ? message.text : ''));
    expect(parts.join('')).toBe('é'.repeat(200));
    expect(parts.every((part) => new TextEncoder().encode(part).length <= 256)).toBe(true);
    expect(keys.text('\n')).toEqual([]);
  });
});
