// Which video codecs the viewer offers, in which order.

/** What of a codec capability counts. */
export interface Codec {
  mimeType: string;
  sdpFmtpLine?: string | undefined;
}

const PREFERRED = ['video/vp9', 'video/vp8', 'video/h264'];
/** They carry repairs of the others, and must be kept for those to work. */
const REPAIR = new Set(['video/rtx', 'video/red', 'video/ulpfec', 'video/flexfec-03']);

/** VP9, then VP8, then H.264, then what repairs them; nothing else. */
export function preferCodecs<C extends Codec>(codecs: readonly C[]): C[] {
  const rank = (codec: C) => PREFERRED.indexOf(codec.mimeType.toLowerCase());
  const video = codecs.filter((codec) => rank(codec) >= 0 && usable(codec)).sort((a, b) => rank(a) - rank(b));
  return [...video, ...codecs.filter((codec) => REPAIR.has(codec.mimeType.toLowerCase()))];
}

/** Only 8-bit 4:2:0 VP9 is sent; the other profiles would waste the first choice. */
function usable(codec: Codec): boolean {
  const profile = /(?:^|;)\s*profile-id=(\d+)/.exec(codec.sdpFmtpLine ?? '')?.[1] ?? '0';
  return codec.mimeType.toLowerCase() !== 'video/vp9' || profile === '0';
}
