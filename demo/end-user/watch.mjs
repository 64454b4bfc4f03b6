// Looks at the player's decoded video frames, inside the page.

/**
 * Runs in the page, before its own scripts; it may use nothing from outside.
 * Leaves `window.pictureWatch` there and calls `window.pictureSaw(name, at_ms)`.
 * @param {{band: number[], tolerance: number}} config
 */
export function watchPicture({ band, tolerance }) {
  const SMALL = { width: 320, height: 180 };
  /** A band is at least this many rows of the small picture: 32 of 720. */
  const BAND_ROWS = 8;
  const small = new OffscreenCanvas(SMALL.width, SMALL.height).getContext('2d', { willReadFrequently: true });
  const seen = new Set();
  const watch = { frames: 0, bandVisible: false };
  let video;

  function once(name) {
    if (seen.has(name)) return;
    seen.add(name);
    void window.pictureSaw(name, Date.now());
  }

  const near = (data, at, colour) =>
    Math.abs(data[at] - colour[0]) <= tolerance &&
    Math.abs(data[at + 1] - colour[1]) <= tolerance &&
    Math.abs(data[at + 2] - colour[2]) <= tolerance;

  function bandRows({ data, width, height }, colour) {
    const rows = [];
    for (let y = 0; y < height; y += 1) {
      let hits = 0;
      for (let x = 0; x < width; x += 1) if (near(data, (y * width + x) * 4, colour)) hits += 1;
      rows.push(hits >= width * 0.6);
    }
    return rows;
  }

  /** The longest run of true: where it starts, where it ends. */
  function longestRun(rows) {
    let best = { top: 0, bottom: 0 };
    for (let y = 0; y < rows.length; y += 1) {
      const top = y;
      while (rows[y]) y += 1;
      if (y - top > best.bottom - best.top) best = { top, bottom: y };
    }
    return best;
  }

  function onFrame() {
    watch.frames += 1;
    small.drawImage(video, 0, 0, SMALL.width, SMALL.height);
    const picture = small.getImageData(0, 0, SMALL.width, SMALL.height);
    if (!seen.has('first_frame') && picture.data.some((value, at) => at % 4 !== 3 && value > 24)) once('first_frame');
    const { top, bottom } = longestRun(bandRows(picture, band));
    watch.bandVisible = bottom - top >= BAND_ROWS;
    if (watch.bandVisible) once('ready');
    video.requestVideoFrameCallback(onFrame);
  }

  /** A part of the picture at full size. */
  function part({ left, top, width, height }) {
    const canvas = new OffscreenCanvas(Math.max(1, width), Math.max(1, height)).getContext('2d');
    canvas.drawImage(video, left, top, width, height, 0, 0, width, height);
    return canvas.getImageData(0, 0, Math.max(1, width), Math.max(1, height));
  }

  /** The band at full size, in guest pixels; undefined when it is not there. */
  watch.findBand = () => {
    if (!video?.videoWidth) return undefined;
    const whole = part({ left: 0, top: 0, width: video.videoWidth, height: video.videoHeight });
    const run = longestRun(bandRows(whole, band));
    return run.bottom - run.top >= (BAND_ROWS * video.videoHeight) / SMALL.height
      ? { ...run, width: video.videoWidth } : undefined;
  };

  /** How much of a part has this colour, 0 to 1. */
  watch.share = (box, colour) => {
    const { data } = part(box);
    let hits = 0;
    for (let at = 0; at < data.length; at += 4) if (near(data, at, colour)) hits += 1;
    return hits / (data.length / 4);
  };

  /** How many pixels of a part are dark, as text on white is. */
  watch.ink = (box) => {
    const { data } = part(box);
    let dark = 0;
    for (let at = 0; at < data.length; at += 4) {
      if (data[at] * 0.3 + data[at + 1] * 0.59 + data[at + 2] * 0.11 < 150) dark += 1;
    }
    return dark;
  };

  const connections = [];
  window.RTCPeerConnection = class extends window.RTCPeerConnection {
    constructor(...options) {
      super(...options);
      connections.push(this);
    }
  };

  const statistics = () => Promise.all(
    connections.filter(({ connectionState }) => connectionState === 'connected').map((one) => one.getStats()),
  );

  /** What came of the video and what became of it, by the browser's statistics of its stream. */
  watch.received = async () => {
    for (const report of await statistics()) {
      for (const stream of report.values()) {
        if (stream.type !== 'inbound-rtp' || stream.kind !== 'video') continue;
        const { packetsReceived, packetsLost, nackCount, pliCount, framesReceived, framesDecoded, framesDropped } = stream;
        return { packetsReceived, packetsLost, nackCount, pliCount, framesReceived, framesDecoded, framesDropped, shown: watch.frames };
      }
    }
    return undefined;
  };

  /** The other end of the connection that is up: the remote candidate of its statistics. */
  watch.mediaFrom = async () => {
    for (const report of await statistics()) {
      for (const transport of report.values()) {
        if (transport.type !== 'transport') continue;
        const pair = report.get(transport.selectedCandidatePairId);
        const { address, port, protocol, candidateType } = report.get(pair?.remoteCandidateId) ?? {};
        if (address) return { address, port, protocol, candidateType };
      }
    }
    return undefined;
  };

  void window.desktopVideo.found.then((element) => {
    video = element;
    video.requestVideoFrameCallback(onFrame);
  });
  window.pictureWatch = watch;
}
