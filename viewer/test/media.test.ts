import { describe, expect, it } from 'vitest';

import { preferCodecs } from '../src/player/codecs';
import { cleanPaste, parseCursorMessage, splitText } from '../src/player/messages';

describe('preferCodecs', () => {
  it('puts VP9 first, then VP8, then H.264, and keeps what repairs them', () => {
    const codecs = [
      { mimeType: 'video/VP8' }, { mimeType: 'video/rtx' }, { mimeType: 'video/H264' }, { mimeType: 'video/AV1' },
      { mimeType: 'video/VP9', sdpFmtpLine: 'profile-id=2' }, { mimeType: 'video/VP9', sdpFmtpLine: 'profile-id=0' },
      { mimeType: 'video/red' },
    ];
    expect(preferCodecs(codecs).map(({ mimeType, sdpFmtpLine }) => `${mimeType} ${sdpFmtpLine ?? ''}`.trim())).toEqual([
      'video/VP9 profile-id=0', 'video/VP8', 'video/H264', 'video/rtx', 'video/red',
    ]);
  });
});

describe('cursor messages', () => {
  const cursor = { type: 'cursor', width: 24, height: 24, hotX: 3, hotY: 4, pngBase64: 'iVBORw0KGgo=' };

  it('are read', () => {
    expect(parseCursorMessage(JSON.stringify(cursor))).toEqual(cursor);
    expect(parseCursorMessage('{"type":"cursor_hidden"}')).toEqual({ type: 'cursor_hidden' });
  });

  it.each([
    ['not text', new ArrayBuffer(2)],
    ['not JSON', '{'],
    ['unknown', '{"type":"x"}'],
    ['a way out of the url()', JSON.stringify({ ...cursor, pngBase64: 'AA"),url(http://x' })],
    ['no size', JSON.stringify({ ...cursor, width: -1 })],
    ['too large', JSON.stringify({ ...cursor, hotX: 1e9 })],
  ])('are dropped when they are %s', (_name, data) => {
    expect(parseCursorMessage(data)).toBeUndefined();
  });
});

describe('text', () => {
  it('is split between characters', () => {
    expect(splitText('aé😀b', 4)).toEqual(['aé', '😀', 'b']);
    expect(splitText('', 4)).toEqual([]);
  });

  it('is cleaned of what the guest refuses', () => {
    expect(cleanPaste('a\r\nb\rc\td\u0000\u001b\u0085e')).toBe('a\nb\nc\tde');
  });
});
