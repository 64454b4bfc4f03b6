// The player's connection statistics.

export interface PlayerStats {
  /** Round trip, in milliseconds. */
  roundTripMs?: number;
  framesDecoded: number;
  framesPerSecond: number;
  bytesReceived: number;
  freezes: number;
  /** Such as `video/VP9`. */
  codec?: string;
  width?: number;
  height?: number;
}

export function readStats(report: RTCStatsReport): PlayerStats {
  const stats: PlayerStats = { framesDecoded: 0, framesPerSecond: 0, bytesReceived: 0, freezes: 0 };
  report.forEach((entry: Record<string, unknown>) => {
    if (entry['type'] === 'candidate-pair' && entry['nominated'] === true) {
      const seconds = entry['currentRoundTripTime'];
      if (typeof seconds === 'number') stats.roundTripMs = seconds * 1000;
    }
    if (entry['type'] === 'inbound-rtp' && entry['kind'] === 'video') readVideo(entry, report, stats);
  });
  return stats;
}

function readVideo(entry: Record<string, unknown>, report: RTCStatsReport, stats: PlayerStats): void {
  const number = (name: string): number => {
    const value = entry[name];
    return typeof value === 'number' ? value : 0;
  };
  stats.framesDecoded = number('framesDecoded');
  stats.framesPerSecond = number('framesPerSecond');
  stats.bytesReceived = number('bytesReceived');
  stats.freezes = number('freezeCount');
  if (number('frameWidth') > 0) {
    stats.width = number('frameWidth');
    stats.height = number('frameHeight');
  }
  const codec = report.get(String(entry['codecId'])) as { mimeType?: string } | undefined;
  if (codec?.mimeType !== undefined) stats.codec = codec.mimeType;
}
