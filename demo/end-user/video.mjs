// The player's video, inside the page.

/**
 * Runs in the page, before its own scripts and before who watches; it may use nothing from outside.
 * Leaves `window.desktopVideo` there: `found` gives the element once it is there, `toClient` the point of
 * the page that shows a guest pixel.
 */
export function findVideo() {
  let video;
  const found = new Promise((resolve) => {
    const looking = new MutationObserver(() => {
      video = document.querySelector('anteroom-player')?.shadowRoot?.querySelector('video');
      if (!video) return;
      looking.disconnect();
      resolve(video);
    });
    looking.observe(document, { childList: true, subtree: true });
  });
  const toClient = ({ x, y }) => {
    const shown = video.getBoundingClientRect();
    const scale = Math.min(shown.width / video.videoWidth, shown.height / video.videoHeight);
    return {
      x: shown.left + (shown.width - video.videoWidth * scale) / 2 + x * scale,
      y: shown.top + (shown.height - video.videoHeight * scale) / 2 + y * scale,
    };
  };
  window.desktopVideo = { found, toClient };
}
