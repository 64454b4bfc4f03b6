// One WebRTC connection to a guest: made once, closed once. Reconnecting makes a new one.

import { preferCodecs } from './codecs';
import type { InputMessage } from './messages';
import { readStats, type PlayerStats } from './stats';

/** Sends an offer to the guest and gives its answer. */
export type Signal = (offerSdp: string, abort: AbortSignal) => Promise<string>;

export interface PeerHandlers {
  onTrack: (stream: MediaStream) => void;
  onConnection: (event: 'up' | 'disconnected' | 'failed') => void;
  onInputOpen: () => void;
  onCursor: (data: unknown) => void;
}

/** Candidates are all local: they are found at once, or not at all. */
const GATHERING_MS = 500;

export class Peer {
  readonly #connection = new RTCPeerConnection({ iceServers: [], bundlePolicy: 'max-bundle' });
  readonly #input = this.#connection.createDataChannel('input', { ordered: true });
  readonly #cursor = this.#connection.createDataChannel('cursor', { ordered: true });
  readonly #closing = new AbortController();
  readonly #handlers: PeerHandlers;

  constructor(handlers: PeerHandlers) {
    this.#handlers = handlers;
    const { transceiver } = addVideo(this.#connection);
    const signal = this.#closing.signal;
    this.#connection.addEventListener('track', (event) => {
      this.#handlers.onTrack(event.streams[0] ?? new MediaStream([event.track]));
      lowerDelay(transceiver.receiver);
    }, { signal });
    this.#connection.addEventListener('connectionstatechange', () => this.#report(), { signal });
    this.#input.addEventListener('open', () => {
      this.#handlers.onInputOpen();
      this.#report();
    }, { signal });
    this.#input.addEventListener('close', () => this.#handlers.onConnection('failed'), { signal });
    this.#cursor.addEventListener('message', (event) => this.#handlers.onCursor(event.data), { signal });
    lowerDelay(transceiver.receiver);
  }

  /** Offers, and takes the answer. The connection comes up afterwards by itself. */
  async open(signal: Signal): Promise<void> {
    await this.#connection.setLocalDescription(await this.#connection.createOffer());
    await gathered(this.#connection, this.#closing.signal);
    const offer = this.#connection.localDescription;
    if (!offer || this.#closing.signal.aborted) return;
    const sdp = await signal(offer.sdp, this.#closing.signal);
    if (this.#closing.signal.aborted) return;
    await this.#connection.setRemoteDescription({ type: 'answer', sdp });
  }

  /** Gives false when the channel is not open: the message is lost then. */
  send(message: InputMessage): boolean {
    if (this.#input.readyState !== 'open') return false;
    this.#input.send(JSON.stringify(message));
    return true;
  }

  async stats(): Promise<PlayerStats> {
    return readStats(await this.#connection.getStats());
  }

  close(): void {
    this.#closing.abort();
    this.#connection.close();
  }

  #report(): void {
    switch (this.#connection.connectionState) {
      case 'connected':
        // Reported when both are open: input sent before that would be lost silently.
        if (this.#input.readyState === 'open') this.#handlers.onConnection('up');
        return;
      case 'disconnected':
        return this.#handlers.onConnection('disconnected');
      case 'failed':
      case 'closed':
        return this.#handlers.onConnection('failed');
      case 'new':
      case 'connecting':
        return;
    }
  }
}

function addVideo(connection: RTCPeerConnection): { transceiver: RTCRtpTransceiver } {
  const transceiver = connection.addTransceiver('video', { direction: 'recvonly' });
  const codecs = RTCRtpReceiver.getCapabilities('video')?.codecs ?? [];
  const preferred = preferCodecs(codecs);
  if (preferred.length > 0) transceiver.setCodecPreferences(preferred);
  return { transceiver };
}

/** Frames are shown when they arrive: what is seen answers what was just typed. */
function lowerDelay(receiver: RTCRtpReceiver): void {
  const tunable = receiver as RTCRtpReceiver & { jitterBufferTarget?: number | null; playoutDelayHint?: number };
  if ('jitterBufferTarget' in tunable) tunable.jitterBufferTarget = 0;
  if ('playoutDelayHint' in tunable) tunable.playoutDelayHint = 0;
}

function gathered(connection: RTCPeerConnection, abort: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      connection.removeEventListener('icegatheringstatechange', look);
      abort.removeEventListener('abort', done);
      resolve();
    };
    const look = () => {
      if (connection.iceGatheringState === 'complete') done();
    };
    const timer = setTimeout(done, GATHERING_MS);
    connection.addEventListener('icegatheringstatechange', look);
    abort.addEventListener('abort', done);
    look();
  });
}
