// How headless Chromium is started here.

/** Flags that keep Chromium quiet and let WebRTC reach this machine's loopback addresses. */
export function chromiumArguments() {
  return [
    '--disable-gpu',
    '--disable-quic',
    '--no-first-run',
    '--disable-background-networking',
    '--disable-component-update',
    '--disable-sync',
    // Chromium leaves loopback candidates out unless asked, and hides local addresses behind mDNS.
    '--allow-loopback-in-peer-connection',
    '--disable-features=WebRtcHideLocalIpsWithMdns',
    '--autoplay-policy=no-user-gesture-required',
    // Chromium's own sandbox refuses to start as root.
    ...(process.getuid?.() === 0 ? ['--no-sandbox'] : []),
  ];
}
