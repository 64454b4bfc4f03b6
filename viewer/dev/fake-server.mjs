// A FAKE Anteroom server, for the viewer's own tests and screenshots only. It speaks the viewer's
// API and serves dist/ under the real content security policy; there is no guest behind it.

import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { makeFakeTerminal } from './fake-terminal.mjs';

const dist = fileURLToPath(new URL('../dist', import.meta.url));

const POLICY = "default-src 'self'; connect-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; style-src 'self'; script-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";
const TYPES = { '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.html': 'text/html' };

/** A session as the real server would show it, at its start. */
export function fakeSession(more = {}) {
  const now = Date.now();
  return {
    sessionId: 'fake-session-01',
    provider: { id: 'demo', name: 'Anteroom demo CLI' },
    operator: { name: 'Example Ltd' },
    method: 'browser',
    instructions: 'Sign in on the page that opens in the desktop.',
    state: 'booting',
    timeline: [{ at: now, kind: 'requested', message: 'the session was requested' }],
    visitsOfOthers: [],
    createdAt: now,
    deadline: now + 10 * 60_000,
    emulated: true,
    isolation: 'vm',
    credential: { status: 'none', openableBy: 'operator', recipient: 'age1operator', files: [] },
    ...more,
  };
}

/** An end user's turn; `more` says in which way. */
export function fakeTurn(method, more = {}) {
  const page = method === 'device_code'
    ? { url: 'https://code.anteroom.test/device', code: 'WXYZ-2048', instructions: 'Open the page where you are signed in and give it the code.' }
    : { url: 'https://accounts.anteroom.test/oauth/authorize?client=demo&state=1', code: null, instructions: 'Open the page, sign in, and paste the code that it shows at the end.' };
  const awaiting = { method, takesCode: method === 'paste_code', screen: [], deadline: Date.now() + 600_000, ...page, ...more };
  return { state: 'awaiting_user', method, awaiting, ...(awaiting.url && { signInUrlHost: new URL(awaiting.url).host }) };
}

/** A turn that only the tool's terminal can show. */
export const UNKNOWN_PROMPT = {
  url: null, code: null, screen: ['Select login method:'],
  instructions: 'The tool asks something that Anteroom does not know. Answer it in its terminal.',
};

/**
 * Starts it on a port of its own.
 * @param {{session?: object, answer?: (sdp: string) => Promise<string>, takeCode?: (code: string) => object | undefined}} options
 *   `answer` replaces the guest; without it every offer gets 503. `takeCode` gives the problem
 *   that a code meets, if any.
 */
export async function startFakeServer({ session = fakeSession(), answer, takeCode = () => undefined } = {}) {
  if (!existsSync(join(dist, 'index.html'))) throw new Error('viewer/dist is missing: run "npm run build" in viewer/ first');
  const streams = new Set();
  let current = session;
  let secret = 'fake-secret';
  let cancelled = 0;
  const offers = [];
  const codes = [];
  let opened = 0;
  const terminal = makeFakeTerminal();
  const view = () => ({ ...current, serverNow: Date.now() });
  const event = () => `event: session\ndata: ${JSON.stringify(view())}\n\n`;
  let revokedAt;
  const signedIn = (request) => (request.headers.cookie ?? '').includes('fake-viewer=1');

  async function api(request, response, path) {
    const json = (status, body, headers = {}) => {
      response.writeHead(status, { 'Content-Type': 'application/json', ...headers });
      response.end(body === undefined ? undefined : JSON.stringify(body));
    };
    const problem = (status, title, detail, code, more = {}) => {
      response.writeHead(status, { 'Content-Type': 'application/problem+json' });
      response.end(JSON.stringify({ type: 'about:blank', title, status, detail, code, ...more }));
    };
    if (path === '/api/viewer/exchange') {
      const body = await readJson(request);
      if (body.secret !== secret) return problem(410, 'Gone', 'the link was used', 'link_used');
      secret = undefined;
      return json(204, undefined, { 'Set-Cookie': 'fake-viewer=1; HttpOnly; SameSite=Strict; Path=/' });
    }
    if (revokedAt !== undefined) return problem(401, 'Unauthorized', 'the link was revoked', 'viewer_revoked', { at: revokedAt });
    if (!signedIn(request)) return problem(401, 'Unauthorized', 'no viewer cookie', 'no_cookie');
    switch (path.replace(current.sessionId, '{id}')) {
      case '/api/viewer/session/{id}':
        return json(200, view());
      case '/api/viewer/session/{id}/events':
        response.writeHead(200, { 'Content-Type': 'text/event-stream', 'Cache-Control': 'no-store' });
        response.write(event());
        streams.add(response);
        response.on('close', () => streams.delete(response));
        return undefined;
      case '/api/viewer/session/{id}/cancel':
        cancelled += 1;
        return json(204);
      case '/api/viewer/session/{id}/code': {
        const { code } = await readJson(request);
        codes.push(code);
        const refused = await takeCode(code);
        return refused ? problem(refused.status, refused.title, refused.detail, refused.code) : json(202, { typed: false, replaced: false });
      }
      case '/api/viewer/session/{id}/open-sign-in-page':
        opened += 1;
        return json(202);
      case '/api/webrtc/session/{id}/offer': {
        const { sdp } = await readJson(request);
        offers.push(sdp);
        if (!answer) return problem(503, 'Not yet', 'the guest has no screen yet', 'not_ready');
        return json(200, { type: 'answer', sdp: await answer(sdp) });
      }
      default:
        return problem(404, 'Not found', `there is no session at ${path}`, 'unknown_session');
    }
  }

  const server = createServer((request, response) => {
    const path = new URL(request.url, 'http://fake').pathname;
    if (path.startsWith('/api/')) {
      api(request, response, path).catch((error) => response.writeHead(500).end(String(error)));
    } else if (path === '/fake-guest') {
      response.writeHead(200, { 'Content-Type': 'text/html' });
      response.end('<!doctype html><title>fake guest</title>');
    } else {
      const file = join(dist, path.startsWith('/assets/') ? path : 'index.html');
      if (!file.startsWith(dist) || !existsSync(file)) return void response.writeHead(404).end();
      response.writeHead(200, { 'Content-Type': TYPES[extname(file)], 'Content-Security-Policy': POLICY });
      response.end(readFileSync(file));
    }
  });
  server.on('upgrade', (request, socket) => {
    if (signedIn(request) && request.url === `/api/viewer/session/${current.sessionId}/terminal`) terminal.accept(request, socket);
    else socket.destroy();
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const origin = `http://127.0.0.1:${server.address().port}`;
  return {
    origin,
    /** The viewer's link; each `renew` makes its secret good again. */
    link: `${origin}/v/${session.sessionId}#fake-secret`,
    renew: () => { secret = 'fake-secret'; },
    offers,
    codes,
    /** How often the desktop's browser was led to the page. */
    opened: () => opened,
    terminal,
    cancelled: () => cancelled,
    session: () => current,
    /** Changes the session and notifies every viewer. */
    set(more) {
      current = { ...current, ...more };
      for (const stream of streams) stream.write(event());
    },
    /** Adds to the timeline. */
    happened(kind, message) {
      this.set({ timeline: [...current.timeline, { at: Date.now(), kind, message }] });
    },
    /** Ends the event streams and refuses the cookie, as a newer link does. */
    revoke() {
      revokedAt = Date.now();
      for (const stream of streams) stream.end();
    },
    /** Cuts the event streams, as a restart would. */
    cut() {
      for (const stream of streams) stream.destroy();
    },
    close() {
      for (const stream of streams) stream.destroy();
      terminal.drop();
      server.closeAllConnections();
      return new Promise((resolve) => server.close(resolve));
    },
  };
}

async function readJson(request) {
  let text = '';
  for await (const chunk of request) text += chunk;
  return JSON.parse(text);
}
