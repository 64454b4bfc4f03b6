// xterm.js writes <style> elements and style attributes, and the server's policy (style-src 'self')
// allows neither. Both become what the policy allows: sheets and styles that are set by script.

import type { Plugin } from 'vite';

const FILE = /\/@xterm\/xterm\/lib\/xterm\.mjs$/;

/** What stands in its file, how often, and what replaces it. */
const CHANGES: readonly { from: RegExp; times: number; to: string }[] = [
  // The element is in src/terminal/sheet-style.ts.
  { from: /createElement\("style"\)/g, times: 3, to: 'createElement("anteroom-style")' },
  {
    from: /(\w)\.setAttribute\("style",`\$\{\1\.getAttribute\("style"\)\|\|""\}\$\{(\w)\};`\)/g,
    times: 1,
    to: '$1.style.cssText+=$2+";"',
  },
];

export function xtermUnderPolicy(): Plugin {
  return {
    name: 'xterm-under-policy',
    enforce: 'pre',
    transform(code, id) {
      if (!FILE.test(id)) return undefined;
      let changed = code;
      for (const { from, times, to } of CHANGES) {
        const found = changed.match(from)?.length ?? 0;
        // A new version writes styles otherwise: without this it would only look broken.
        if (found !== times) throw new Error(`xterm.mjs has ${found} of ${String(from)}, not ${times}: see xterm-under-policy.ts`);
        changed = changed.replace(from, to);
      }
      return { code: changed, map: null };
    },
  };
}
