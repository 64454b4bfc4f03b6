#!/usr/bin/env node
// A local OpenID provider for the demonstration: npm's oidc-provider with one account and one
// client, and a sign-in page of our own. It says on stdout, as JSON lines, what it does; tokens
// appear there as hashes only. It ends when stdin closes, so it cannot outlive what started it.

import { createHash, generateKeyPairSync, randomBytes, timingSafeEqual } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';
import { parseArgs } from 'node:util';

import Provider from 'oidc-provider';

import { readBody } from './body.mjs';
import { serveSoak } from '../soak/page.mjs';
import { serveStream } from '../stream/page.mjs';
import { problemPage, SCRIPT, signInPage, STYLE } from './sign-in-page.mjs';

const CLIENT_ID = 'demo-login';
const MAX_FORM_BYTES = 8 * 1024;
const HOUR_SECONDS = 3600;

const { values: options } = parseArgs({
  options: {
    host: { type: 'string', default: '127.0.0.1' },
    port: { type: 'string', default: '0' },
    issuer: { type: 'string', default: 'https://accounts.anteroom.test' },
    cert: { type: 'string' },
    key: { type: 'string' },
    user: { type: 'string', default: 'ada@example.com' },
    password: { type: 'string', default: 'correct horse' },
    // A host, here too, that the way to the sign-in page leads over, as a company's own does.
    by: { type: 'string' },
  },
});
if (!options.cert || !options.key) {
  process.stderr.write('usage: node server.mjs --cert FILE --key FILE [--host H] [--port P] [--issuer URL] [--user E] [--password P] [--by HOST]\n');
  process.exit(2);
}

const sha256 = (text) => createHash('sha256').update(text).digest();
const say = (line) => process.stdout.write(`${JSON.stringify(line)}\n`);

const signingKey = generateKeyPairSync('rsa', { modulusLength: 2048 }).privateKey.export({ format: 'jwk' });

const provider = new Provider(options.issuer, {
  jwks: { keys: [{ ...signingKey, use: 'sig', alg: 'RS256' }] },
  clients: [
    {
      client_id: CLIENT_ID,
      client_name: CLIENT_ID,
      application_type: 'native',
      token_endpoint_auth_method: 'none',
      grant_types: ['authorization_code', 'refresh_token'],
      response_types: ['code'],
      // Any port is taken for a native client on loopback (RFC 8252, 7.3).
      redirect_uris: ['http://127.0.0.1/callback'],
    },
  ],
  scopes: ['openid', 'offline_access', 'email'],
  claims: { openid: ['sub'], email: ['email', 'email_verified'] },
  pkce: { required: () => true },
  rotateRefreshToken: true,
  cookies: { keys: [randomBytes(32).toString('base64url')] },
  ttl: {
    AccessToken: HOUR_SECONDS,
    AuthorizationCode: 60,
    Grant: 24 * HOUR_SECONDS,
    IdToken: HOUR_SECONDS,
    Interaction: HOUR_SECONDS,
    RefreshToken: 24 * HOUR_SECONDS,
    Session: HOUR_SECONDS,
  },
  features: { devInteractions: { enabled: false } },
  interactions: {
    url: (_ctx, interaction) => `${options.by ? `https://${options.by}` : ''}/interaction/${interaction.uid}`,
  },
  findAccount: (_ctx, id) => ({
    accountId: id,
    claims: () => ({ sub: id, email: options.user, email_verified: true }),
  }),
  renderError: (ctx, out) => {
    ctx.type = 'html';
    ctx.body = problemPage('This sign-in cannot go on', out.error_description ?? out.error);
  },
});

provider.on('grant.success', (ctx) => {
  const { access_token: access, refresh_token: refresh } = ctx.body;
  say({
    issued: {
      access_token_sha256: sha256(access).toString('hex'),
      ...(refresh && { refresh_token_sha256: sha256(refresh).toString('hex') }),
    },
  });
});
provider.on('server_error', (_ctx, error) => process.stderr.write(`${error.stack}\n`));

async function showSignIn(request, response, { email = '', problem } = {}) {
  const { uid, params } = await provider.interactionDetails(request, response);
  const client = await provider.Client.find(params.client_id);
  sendPage(response, 200, signInPage({
    action: `/interaction/${uid}/sign-in`,
    cancelAction: `/interaction/${uid}/cancel`,
    clientName: client?.clientName ?? params.client_id,
    email,
    problem,
  }));
}

async function takeSignIn(request, response) {
  const form = await readForm(request);
  const email = (form.get('email') ?? '').trim();
  const ok = isAccount(email, form.get('password') ?? '');
  say({ login: { email, ok, online: form.get('online') === 'true' } });
  if (!ok) {
    await showSignIn(request, response, { email, problem: 'That password is not right.' });
    return;
  }
  const { params } = await provider.interactionDetails(request, response);
  const grant = new provider.Grant({ accountId: email.toLowerCase(), clientId: params.client_id });
  grant.addOIDCScope(params.scope);
  // The button says "sign in and allow": one step answers both of the provider's questions.
  await provider.interactionFinished(request, response, {
    login: { accountId: email.toLowerCase() },
    consent: { grantId: await grant.save() },
  });
}

async function takeCancel(request, response) {
  await readForm(request);
  await provider.interactionFinished(request, response, {
    error: 'access_denied',
    error_description: 'the end user did not allow it',
  });
}

/** Compares in constant time, and both parts always. */
function isAccount(email, password) {
  const emailIs = timingSafeEqual(sha256(email.toLowerCase()), sha256(options.user.toLowerCase()));
  const passwordIs = timingSafeEqual(sha256(password), sha256(options.password));
  return emailIs && passwordIs;
}

async function readForm(request) {
  return new URLSearchParams(await readBody(request, MAX_FORM_BYTES, 'form'));
}

function sendPage(response, status, html) {
  const [styleHash, scriptHash] = [STYLE, SCRIPT].map((text) => sha256(text).toString('base64'));
  response.writeHead(status, {
    'Content-Type': 'text/html; charset=utf-8',
    'Cache-Control': 'no-store',
    'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff',
    // form-action also rules the redirect that follows the form: it ends at the tool's callback.
    'Content-Security-Policy':
      `default-src 'none'; img-src data:; style-src 'sha256-${styleHash}'; script-src 'sha256-${scriptHash}'; base-uri 'none'; frame-ancestors 'none'; form-action 'self' http://127.0.0.1:*`,
  });
  response.end(html);
}

const steps = { 'GET ': showSignIn, 'POST sign-in': takeSignIn, 'POST cancel': takeCancel };
const rest = provider.callback();
const issuerHost = new URL(options.issuer).host;

async function handle(request, response) {
  if (options.by && request.headers.host === options.by) {
    response.writeHead(302, { Location: new URL(request.url, options.issuer).href, 'Cache-Control': 'no-store' });
    response.end();
    return;
  }
  // Cookies and addresses follow the issuer's name, whatever name and port led here.
  request.headers.host = issuerHost;
  const [, root, uid, step = ''] = new URL(request.url, options.issuer).pathname.split('/');
  let serve = root === 'interaction' && uid ? steps[`${request.method} ${step}`] : undefined;
  // No part of a sign-in: the pages that the long run watches, and that the stream is measured with.
  if (root === 'soak') serve = () => serveSoak(request, response, say);
  if (root === 'stream') serve = () => serveStream(response);
  if (!serve) {
    rest(request, response);
    return;
  }
  try {
    await serve(request, response);
  } catch (error) {
    // Most often an old page: its sign-in is over, or its cookie is gone.
    sendPage(response, 400, problemPage('This sign-in is over', 'Start it again from the tool.'));
    process.stderr.write(`${request.method} ${root}/${step}: ${error.message}\n`);
  }
}

const server = createServer(
  { cert: readFileSync(options.cert), key: readFileSync(options.key) },
  handle,
);
server.listen(Number(options.port), options.host, () => {
  say({ listening: true, port: server.address().port, pid: process.pid });
});
server.on('error', (error) => {
  process.stderr.write(`cannot listen on ${options.host}:${options.port}: ${error.message}\n`);
  process.exit(1);
});

const stop = () => process.exit(0);
process.stdin.resume().on('end', stop).on('close', stop).on('error', stop);
process.on('SIGTERM', stop).on('SIGINT', stop);
