// The demonstration's sign-in without Anteroom: the command-line tool, the provider, a browser.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync, readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { test } from 'node:test';

import { layout } from '../oidc-provider/sign-in-page.mjs';
import { demoFolder, start, startBrowser, startGate, startProvider, temporaryFolder } from './support.mjs';

const tool = join(demoFolder, 'cli/demo-login');
const sha256 = (text) => createHash('sha256').update(text).digest('hex');

/** The tool's environment, with nothing inherited but what it needs. */
const toolEnvironment = (home, more = {}) => ({
  PATH: process.env.PATH, HOME: home, BROWSER: '/bin/true', ...more,
});

/** The browser gives the focus with the first frame that it draws. */
const hasFocus = (page, id) => page.waitForFunction((wanted) => document.activeElement?.id === wanted, id);

async function startSignIn(t) {
  const folder = temporaryFolder(t);
  const provider = await startProvider(t, folder);
  const gate = await startGate(t, provider.port);
  const environment = toolEnvironment(folder, { HTTPS_PROXY: gate, SSL_CERT_FILE: provider.cert });
  const login = start(t, '/usr/bin/python3', ['-IS', tool, 'login'], { env: environment });
  const url = await login.until((line) => /^Open this address to sign in: (.+)$/.exec(line)?.[1]);
  const browser = await startBrowser(t, gate);
  const page = await browser.newPage({ ignoreHTTPSErrors: true, viewport: { width: 1280, height: 620 } });
  await page.goto(url);
  return { folder, provider, login, page, environment };
}

test('a wrong password is said, the right one ends in a complete credential', async (t) => {
  const { folder, provider, login, page, environment } = await startSignIn(t);
  assert.equal(await page.title(), 'Sign in · Anteroom demo');
  await hasFocus(page, 'email');

  await page.keyboard.type('ada@example.com');
  await page.keyboard.press('Tab');
  await page.keyboard.type('battery staple');
  await page.keyboard.press('Enter');
  await page.getByRole('alert').filter({ hasText: 'That password is not right.' }).waitFor();
  assert.equal(await page.inputValue('#email'), 'ada@example.com');
  await hasFocus(page, 'password');

  await page.keyboard.type('correct horse');
  await page.keyboard.press('Enter');
  await page.getByRole('heading', { name: 'You are signed in' }).waitFor();
  const { code, errors } = await login.exit;
  assert.equal(code, 0, errors);

  const path = join(folder, '.demo-login/credentials.json');
  const credential = JSON.parse(readFileSync(path, 'utf8'));
  assert.deepEqual(Object.keys(credential).sort(), [
    'access_token', 'client_id', 'expires_at', 'id_token', 'issuer', 'refresh_token', 'scope',
  ]);
  assert.equal(statSync(path).mode & 0o777, 0o600);
  assert.deepEqual(readdirSync(join(folder, '.demo-login')), ['credentials.json']);
  assert.equal(credential.issuer, 'https://accounts.anteroom.test');
  assert.equal(credential.scope, 'openid email offline_access');
  assert.ok(!(await page.content()).includes(credential.access_token));

  await provider.until((line) => JSON.parse(line).issued);
  assert.deepEqual(provider.said('login').map((line) => line.login), [
    { email: 'ada@example.com', ok: false, online: true },
    { email: 'ada@example.com', ok: true, online: true },
  ]);
  assert.deepEqual(provider.said('issued'), [{
    issued: {
      access_token_sha256: sha256(credential.access_token),
      refresh_token_sha256: sha256(credential.refresh_token),
    },
  }]);

  const status = start(t, '/usr/bin/python3', ['-IS', tool, 'status'], { env: environment });
  assert.match(await status.until((line) => line), /^Signed in at https:\/\/accounts\.anteroom\.test/);
});

test('a sign-in that is not allowed ends the tool with 1 and leaves no file', async (t) => {
  const { folder, login, page } = await startSignIn(t);
  await page.getByRole('button', { name: 'Do not allow' }).click();
  await page.getByRole('heading', { name: 'You are not signed in' }).waitFor();
  const { code, errors } = await login.exit;
  assert.equal(code, 1);
  assert.match(errors, /the provider refused the sign-in: access_denied/);
  assert.ok(!readdirSync(folder).includes('.demo-login'));
});

test('an answer with a foreign state is refused, and the sign-in goes on', async (t) => {
  const { login, page } = await startSignIn(t);
  const callback = new URL(new URL(page.url()).origin);
  const url = login.lines.map((line) => /^Open this address to sign in: (.+)$/.exec(line)?.[1]).find(Boolean);
  callback.href = new URL(url).searchParams.get('redirect_uri');
  callback.search = 'code=stolen&state=guessed';
  assert.equal((await fetch(callback)).status, 400);
  await page.fill('#email', 'ada@example.com');
  await page.fill('#password', 'correct horse');
  // Not by a key: before the page is drawn, a busy browser can lose one.
  await page.getByRole('button', { name: 'Sign in and allow' }).click();
  const { code, errors } = await login.exit;
  assert.equal(code, 0, errors);
});

test('the page keeps its places, so that pixels are enough to use it', async (t) => {
  const { page } = await startSignIn(t);
  const rectangle = (selector) => page.locator(selector).evaluate((element) => {
    const { left, top, width, height } = element.getBoundingClientRect();
    return { left, top, width, height };
  });
  const band = await rectangle('header');
  assert.deepEqual(band, { left: 0, top: 0, width: 1280, height: layout.band.height });
  assert.equal(
    await page.locator('header').evaluate((element) => getComputedStyle(element).backgroundColor),
    `rgb(${layout.band.colour.join(', ')})`,
  );
  for (const [selector, box] of [['#email', layout.email], ['#password', layout.password], ['.submit', layout.submit]]) {
    assert.deepEqual(await rectangle(selector), {
      left: 640 - box.width / 2, top: layout.band.height + box.top, width: box.width, height: box.height,
    });
  }
  assert.ok(await page.evaluate(() => document.documentElement.scrollHeight <= innerHeight), 'it fits without scrolling');
});

test('the provider ends when its stdin is closed', async (t) => {
  const provider = await startProvider(t, temporaryFolder(t));
  provider.child.stdin.end();
  assert.deepEqual((await provider.exit).code, 0);
});

test('an issuer that cannot be reached is named', async (t) => {
  const login = start(t, '/usr/bin/python3', ['-IS', tool, 'login'], {
    env: toolEnvironment(temporaryFolder(t), { DEMO_LOGIN_ISSUER: 'https://127.0.0.1:9' }),
  });
  const { code, errors } = await login.exit;
  assert.equal(code, 1);
  assert.match(errors, /127\.0\.0\.1:9 cannot be reached/);
});
