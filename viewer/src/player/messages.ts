// What travels on the data channels. The guest reads the same JSON, and refuses what is not in it.

export type PointerButton = 'left' | 'middle' | 'right';

/** Viewer to guest, channel "input". Positions are pixels of the guest's screen. */
export type InputMessage =
  | { type: 'pointer_move'; x: number; y: number }
  | { type: 'pointer_button'; button: PointerButton; pressed: boolean }
  /** In wheel notches; positive is right and down. */
  | { type: 'scroll'; dx: number; dy: number }
  /** `code` is a `KeyboardEvent.code`. */
  | { type: 'key'; code: string; pressed: boolean }
  | { type: 'text'; text: string }
  | { type: 'paste'; text: string }
  | { type: 'release_all' };

/** Guest to viewer, channel "cursor". */
export type CursorMessage =
  | { type: 'cursor'; width: number; height: number; hotX: number; hotY: number; pngBase64: string }
  | { type: 'cursor_hidden' };

/** The longest composed text that the guest takes, in bytes of UTF-8. */
export const MAX_TEXT_BYTES = 256;

/** The longest pasted text that the guest takes, in bytes of UTF-8. */
export const MAX_PASTE_BYTES = 4096;

/** The most wheel notches in one message. */
export const MAX_SCROLL_NOTCHES = 32;

const encoder = new TextEncoder();

export function utf8Length(text: string): number {
  return encoder.encode(text).length;
}

/** Splits text into parts of at most `limit` bytes of UTF-8, between characters. */
export function splitText(text: string, limit: number): string[] {
  const parts: string[] = [];
  let part = '';
  let size = 0;
  for (const character of text) {
    const length = utf8Length(character);
    if (part !== '' && size + length > limit) {
      parts.push(part);
      part = '';
      size = 0;
    }
    part += character;
    size += length;
  }
  if (part !== '') parts.push(part);
  return parts;
}

/** Line breaks as the guest wants them, and without control characters that it refuses. */
export function cleanPaste(text: string): string {
  return text.replace(/\r\n?/g, '\n').replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, '');
}

/** A cursor message, or undefined for anything else. */
export function parseCursorMessage(data: unknown): CursorMessage | undefined {
  if (typeof data !== 'string') return undefined;
  let value: unknown;
  try {
    value = JSON.parse(data);
  } catch {
    return undefined;
  }
  if (typeof value !== 'object' || value === null) return undefined;
  const message = value as Record<string, unknown>;
  if (message['type'] === 'cursor_hidden') return { type: 'cursor_hidden' };
  if (message['type'] !== 'cursor') return undefined;
  const { width, height, hotX, hotY, pngBase64 } = message;
  if (!isPixel(width) || !isPixel(height) || !isPixel(hotX) || !isPixel(hotY)) return undefined;
  if (typeof pngBase64 !== 'string' || !/^[A-Za-z0-9+/]+={0,2}$/.test(pngBase64)) return undefined;
  return { type: 'cursor', width, height, hotX, hotY, pngBase64 };
}

function isPixel(value: unknown): value is number {
  return typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 1024;
}
