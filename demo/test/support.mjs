// What the demonstration's tests share: processes that are always ended, a certificate, a browser,
// and a proxy that stands in for Anteroom's egress gate.

import { spawn, execFileSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';

import { chromium } from 'playwright-core';

import { chromiumArguments } from '../end-user/chromium.mjs';

export const ISSUER_HOST = 'accounts.anteroom.test';
export const demoFolder = fileURLToPath(new URL('..', import.meta.url));

/** A folder that is removed when the test ends. */
export function temporaryFolder(t) {
  const folder = mkdtempSync(join(tmpdir(), 'demo-test-'));
  t.after(() => rmSync(folder, { recursive: true, force: true }));
  return folder;
}

/** A self-signed certificate for the issuer's name. */
export function certificate(folder) {
  const files = { cert: join(folder, 'cert.pem'), key: join(folder, 'key.pem') };
  execFileSync('openssl', [
    'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2',
    '-subj', `/CN=${ISSUER_HOST}`, '-addext', `subjectAltName=DNS:${ISSUER_HOST}`,
    '-keyout', files.key, '-out', files.cert,
  ], { stdio: 'ignore' });
  return files;
}

/** Starts a program; `lines` grows, `until(match)` waits for a line, `exit` for the end. */
export function start(t, command, args, options = {}) {
  const child = spawn(command, args, { stdio: ['pipe', 'pipe', 'pipe'], ...options });
  const lines = [];
  const waiting = new Set();
  let errors = '';
  createInterface({ input: child.stdout }).on('line', (line) => {
    lines.push(line);
    for (const look of waiting) look();
  });
  child.stderr.on('data', (data) => { errors += data; });
  const exit = once(child, 'close').then(([code, signal]) => ({ code, signal, errors }));
  t.after(async () => {
    if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL');
    await exit;
  });
  const until = (match) => Promise.race([
    new Promise((resolve) => {
      const look = () => {
        const found = lines.map(match).find(Boolean);
        if (found) { waiting.delete(look); resolve(found); }
      };
      waiting.add(look);
      look();
    }),
    exit.then(({ code }) => {
      const found = lines.map(match).find(Boolean);
      if (found) return found;
      throw new Error(`${command} ended with ${code} first; it said:\n${lines.join('\n')}\n${errors}`);
    }),
  ]);
  return { child, lines, until, exit };
}

/** The OpenID provider, listening. */
export async function startProvider(t, folder) {
  const { cert, key } = certificate(folder);
  const provider = start(t, process.execPath, [
    join(demoFolder, 'oidc-provider/server.mjs'), '--cert', cert, '--key', key,
  ]);
  const { port } = await provider.until((line) => {
    const said = JSON.parse(line);
    return said.listening ? said : undefined;
  });
  const said = (name) => provider.lines.map((line) => JSON.parse(line)).filter((line) => name in line);
  return { ...provider, port, cert, said };
}

/** An HTTP proxy that takes CONNECT to the issuer's name and nothing else. */
export async function startGate(t, providerPort) {
  const gate = createServer((_request, response) => response.writeHead(403).end());
  const sockets = new Set();
  gate.on('connect', (request, socket) => {
    if (request.url !== `${ISSUER_HOST}:443`) {
      socket.end('HTTP/1.1 403 Forbidden\r\n\r\n');
      return;
    }
    const upstream = connect(providerPort, '127.0.0.1', () => {
      socket.write('HTTP/1.1 200 Connected\r\n\r\n');
      upstream.pipe(socket).pipe(upstream);
    });
    for (const end of [socket, upstream]) {
      sockets.add(end);
      end.on('error', () => { socket.destroy(); upstream.destroy(); });
    }
  });
  await new Promise((resolve) => gate.listen(0, '127.0.0.1', resolve));
  t.after(() => {
    for (const socket of sockets) socket.destroy();
    gate.closeAllConnections();
    return new Promise((resolve) => gate.close(resolve));
  });
  return `http://127.0.0.1:${gate.address().port}`;
}

/** Headless Chromium; `proxy` as startGate gives it. */
export async function startBrowser(t, proxy) {
  const browser = await chromium.launch({
    executablePath: process.env.CHROMIUM ?? '/usr/bin/chromium',
    // As a flag: Playwright's own proxy option would send the loopback callback there too.
    args: [...chromiumArguments(), ...(proxy ? [`--proxy-server=${proxy}`] : [])],
  });
  t.after(() => browser.close());
  return browser;
}
