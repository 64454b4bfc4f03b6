import { defineConfig } from 'vitest/config';

import { xtermUnderPolicy } from './xterm-under-policy.ts';

export default defineConfig({
  // The page lives at /v/{sessionId}, its files at /assets/.
  base: '/',
  plugins: [xtermUnderPolicy()],
  test: { include: ['test/**/*.test.ts'] },
  build: {
    target: 'es2022',
    // The server's content security policy allows no inline code, and only files of its own.
    assetsInlineLimit: 0,
    modulePreload: { polyfill: false },
    reportCompressedSize: false,
    // xterm.js goes out with the page: its licence asks to go with it.
    license: { fileName: 'assets/licences.md' },
  },
});
