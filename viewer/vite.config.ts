import { defineConfig } from 'vitest/config';

export default defineConfig({
  // The page lives at /v/{sessionId}, its files at /assets/.
  base: '/',
  test: { include: ['test/**/*.test.ts'] },
  build: {
    target: 'es2022',
    // The server's content security policy allows no inline code, and only files of its own.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
  },
});
