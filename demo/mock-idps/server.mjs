// Mock identity providers (for tests) of real command-line tools: OpenAI's for
// Codex, Anthropic's for Claude Code, Google's for Gemini CLI, GitHub's for its own CLI and Copilot's.
// They implement the endpoints that the
// unmodified tools call, by OAuth 2.0 (RFC 6749) with PKCE (RFC 7636); what a tool sends is held to
// those. Accounts, consent and everything else that an end user meets are one button.
//
// node server.mjs --cert PEM --key PEM [--fault NAME], where NAME is one of: 500, drop, slow (what is
// posted), blocked (the page refuses the browser), meddle (the page calls the tool's own port),
// country (OpenAI refuses where the request comes from), ineligible (Google serves no individuals by
// this client)
// Prints one line of JSON at a time: {"port": …, "proxy": …} first, then what is called. Ends with its
// input. By the proxy, a port without TLS, a tool that runs on this machine finds all hosts here.
import { createHash, randomBytes } from 'node:crypto'
import { createServer as createProxy } from 'node:http'
import { createServer } from 'node:https'
import { connect } from 'node:net'
import { readFileSync } from 'node:fs'
import { parseArgs } from 'node:util'

const { values: options } = parseArgs({
  options: { cert: { type: 'string' }, key: { type: 'string' }, fault: { type: 'string', default: '' } },
})
const report = (line) => process.stdout.write(JSON.stringify(line) + '\n')
const random = (bytes = 24) => randomBytes(bytes).toString('base64url')
const sha256 = (text) => createHash('sha256').update(text).digest('base64url')

/** Codes given out: what the exchange has to match. */
const codes = new Map()
/** Device codes of OpenAI's device sign-in. */
const devices = new Map()

/** An unsigned token with these claims: the tools read claims and leave signatures to the servers. */
const jwt = (claims) => {
  const part = (value) => Buffer.from(JSON.stringify(value)).toString('base64url')
  return `${part({ alg: 'none', typ: 'JWT' })}.${part(claims)}.${random(8)}`
}

const idToken = () =>
  jwt({
    iss: 'https://auth.openai.com',
    aud: ['app_EMoamEEZ73f0CkXaXp7hrann'],
    sub: 'auth0|mock',
    email: 'ada@example.com',
    email_verified: true,
    exp: Math.floor(Date.now() / 1000) + 3600,
    iat: Math.floor(Date.now() / 1000),
    'https://api.openai.com/auth': {
      chatgpt_account_id: 'account-mock',
      chatgpt_plan_type: 'plus',
      chatgpt_user_id: 'user-mock',
      organizations: [{ id: 'org-mock', is_default: true, role: 'owner', title: 'Personal' }],
      user_id: 'user-mock',
    },
  })

const page = (title, body) =>
  `<!doctype html><html lang=en><meta charset=utf-8><title>${title}</title>` +
  `<style>body{font:20px sans-serif;margin:0;height:100vh;display:grid;place-items:center}` +
  `button,a{font:inherit;padding:1em 2em;display:block;margin:1em}</style><main>${body}</main></html>`

const html = (response, status, text) => {
  response.writeHead(status, { 'content-type': 'text/html; charset=utf-8', 'cache-control': 'no-store' })
  response.end(text)
}
const json = (response, status, value) => {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' })
  response.end(JSON.stringify(value))
}

/** What a page could do to the port where Codex waits. */
const MEDDLING = `<img src="http://localhost:1455/cancel" hidden><script>
for (const way of ['no-cors', 'cors']) fetch('http://localhost:1455/cancel', { mode: way }).catch(() => {})</script>`

/** As sign-in pages have it: who presses twice has signed in once. */
const ONCE = `<script>let sent = false
addEventListener('submit', (event) => { if (sent) event.preventDefault(); sent = true })</script>`

/** The page where an account is chosen; `Allow` goes on to where the tool wants to be called back. */
const authorize = (url, response, host) => {
  const asked = url.searchParams
  if (options.fault === 'blocked') return html(response, 200, page("Couldn't sign you in", 'This browser or app may not be secure.'))
  const code = random()
  const challenge = asked.get('code_challenge') ?? url.search.match(/^\?(?:z-|I)([\w-]{43})$/)?.[1]
  codes.set(code, { challenge, redirect: asked.get('redirect_uri'), host })
  const redirect = new URL(asked.get('redirect_uri') ?? 'https://platform.claude.com/oauth/code/callback')
  redirect.searchParams.set('code', code)
  // Claude Code's short address holds the challenge alone, and takes it for the state.
  const state = asked.get('state') ?? challenge
  if (state) redirect.searchParams.set('state', state)
  const denied = new URL(redirect)
  denied.searchParams.delete('code')
  denied.searchParams.set('error', 'access_denied')
  report({ authorize: host, challenge: Boolean(challenge), state: asked.has('state') })
  html(
    response,
    200,
    page(`Sign in to ${host}`, `<p>${host} (mock)${options.fault === 'meddle' ? MEDDLING : ''}<form method=get action=/mock/go>` +
      `<input type=hidden name=to value="${redirect.href.replaceAll('&', '&amp;')}"><button id=allow autofocus>Allow</button></form>` +
      `<form method=get action=/mock/go><input type=hidden name=to value="${denied.href.replaceAll('&', '&amp;')}"><button id=deny>Deny</button></form>${ONCE}`),
  )
}

/** Holds an exchange to what was agreed. */
const redeem = (form, response) => {
  const agreed = codes.get(form.code)
  if (!agreed) return json(response, 400, { error: 'invalid_grant', error_description: 'no such code' })
  codes.delete(form.code)
  if (agreed.challenge && sha256(form.code_verifier ?? '') !== agreed.challenge) {
    return json(response, 400, { error: 'invalid_grant', error_description: 'the verifier is another one' })
  }
  if (agreed.redirect && form.redirect_uri !== agreed.redirect) {
    return json(response, 400, { error: 'invalid_grant', error_description: 'the redirect_uri is another one' })
  }
  return agreed
}

const openai = async (request, url, response, form) => {
  switch (`${request.method} ${url.pathname}`) {
    case 'GET /oauth/authorize':
      return authorize(url, response, 'auth.openai.com')
    case 'POST /oauth/token': {
      if (options.fault === 'country') {
        return json(response, 403, { error: { code: 'unsupported_country_region_territory', message: 'Country, region, or territory not supported', param: null, type: 'request_forbidden' } })
      }
      if (form.grant_type === 'authorization_code') {
        if (!redeem(form, response)) return
        const tokens = { id_token: idToken(), access_token: jwt({ exp: Math.floor(Date.now() / 1000) + 3600, sub: 'x' }), refresh_token: `rt_${random()}` }
        report({ issued: 'openai', refresh_sha256: createHash('sha256').update(tokens.refresh_token).digest('hex') })
        return json(response, 200, tokens)
      }
      // Token exchange (RFC 8693): a key for the API.
      return json(response, 200, { access_token: `sk-mock-${random()}`, token_type: 'bearer' })
    }
    case 'POST /api/accounts/deviceauth/usercode': {
      const device = { id: `deviceauth_${random()}`, code: 'ABCD-12345', allowed: false }
      devices.set(device.id, device)
      return json(response, 200, { device_auth_id: device.id, user_code: device.code, interval: '1', expires_at: new Date(Date.now() + 900000).toISOString() })
    }
    case 'GET /codex/device':
      for (const device of devices.values()) device.allowed = true
      return html(response, 200, page('Device', 'Allowed.'))
    case 'POST /api/accounts/deviceauth/token': {
      const device = devices.get(form.device_auth_id)
      if (!device?.allowed) return json(response, 403, { error: 'authorization_pending' })
      const verifier = random(32)
      const code = random()
      codes.set(code, { challenge: sha256(verifier) })
      return json(response, 200, { authorization_code: code, code_challenge: sha256(verifier), code_verifier: verifier })
    }
  }
  return json(response, 404, { error: 'not_found' })
}

const anthropic = async (request, url, response, form) => {
  switch (`${request.method} ${url.pathname}`) {
    case 'GET /oauth/authorize':
    case 'GET /cai/oauth/authorize':
      return authorize(url, response, request.headers.host)
    case 'GET /oauth/code/callback': {
      const [code, state] = ['code', 'state'].map((name) => url.searchParams.get(name) ?? '')
      return html(response, 200, page('Authentication code', `<p>Paste this into Claude Code:<p id=code>${code}#${state}`))
    }
    case 'GET /oauth/code/success':
      return html(response, 200, page('Signed in', 'You can close this window.'))
    case 'POST /v1/oauth/token': {
      const agreed = redeem(form, response)
      if (!agreed) return
      const tokens = { token_type: 'Bearer', access_token: `sk-ant-oat01-${random(48)}`, refresh_token: `sk-ant-ort01-${random(48)}`, expires_in: 28800, scope: 'org:create_api_key user:profile user:inference user:sessions:claude_code', account: { uuid: '11111111-1111-4111-8111-111111111111', email_address: 'ada@example.com' }, organization: { uuid: '22222222-2222-4222-8222-222222222222', name: "Ada's Organization" } }
      report({ issued: 'anthropic', refresh_sha256: createHash('sha256').update(tokens.refresh_token).digest('hex') })
      // `claude setup-token` keeps this one alone.
      report({ issued: 'anthropic', refresh_sha256: createHash('sha256').update(tokens.access_token).digest('hex') })
      return json(response, 200, tokens)
    }
    case 'GET /api/oauth/profile':
      return json(response, 200, { account: { uuid: '11111111-1111-4111-8111-111111111111', email: 'ada@example.com', display_name: 'Ada', full_name: 'Ada', has_claude_max: true, has_claude_pro: false, created_at: '2025-01-01T00:00:00Z' }, organization: { uuid: '22222222-2222-4222-8222-222222222222', name: "Ada's Organization", organization_type: 'claude_max', rate_limit_tier: 'default_claude_max_5x', billing_type: 'stripe_subscription', has_extra_usage_enabled: false, subscription_status: 'active', subscription_created_at: '2025-01-01T00:00:00Z' } })
    case 'GET /api/oauth/claude_cli/roles':
      return json(response, 200, { organization_uuid: '22222222-2222-4222-8222-222222222222', organization_name: "Ada's Organization", organization_role: 'admin', workspace_uuid: null, workspace_name: null, workspace_role: null })
  }
  return json(response, 404, { error: 'not_found' })
}

const google = async (request, url, response, form) => {
  switch (`${request.method} ${url.pathname}`) {
    case 'GET /o/oauth2/v2/auth':
      return authorize(url, response, 'accounts.google.com')
    case 'GET /authcode':
      return html(response, 200, page('Authorization code', `<p id=code>${url.searchParams.get('code') ?? ''}`))
    case 'POST /token': {
      if (!redeem(form, response)) return
      const tokens = { access_token: `ya29.${random(48)}`, refresh_token: `1//${random(32)}`, expires_in: 3599, token_type: 'Bearer', scope: 'https://www.googleapis.com/auth/cloud-platform', id_token: jwt({ email: 'ada@example.com' }) }
      report({ issued: 'google', refresh_sha256: createHash('sha256').update(tokens.refresh_token).digest('hex') })
      return json(response, 200, tokens)
    }
    case 'GET /oauth2/v2/userinfo':
      return json(response, 200, { id: '1', email: 'ada@example.com', verified_email: true, name: 'Ada' })
    case 'POST /tokeninfo':
      return json(response, 200, { aud: 'x', email: 'ada@example.com', email_verified: 'true', expires_in: '3500', scope: 'https://www.googleapis.com/auth/cloud-platform' })
    case 'POST /v1internal:loadCodeAssist':
      if (options.fault === 'ineligible') {
        const reasonMessage = 'This client is no longer supported for Gemini Code Assist for individuals. To continue using Gemini, please migrate to the Antigravity suite of products: https://antigravity.google'
        return json(response, 200, { currentTier: { id: 'free-tier', name: 'Gemini Code Assist for individuals' }, ineligibleTiers: [{ reasonCode: 'UNSUPPORTED_CLIENT', reasonMessage, tierId: 'free-tier', tierName: 'Gemini Code Assist for individuals' }] })
      }
      return json(response, 200, { currentTier: { id: 'free-tier', name: 'Free' }, allowedTiers: [{ id: 'free-tier', name: 'Free', isDefault: true }], cloudaicompanionProject: 'mock' })
  }
  return json(response, 404, { error: 'not_found' })
}

const github = (request, url, response, form) => {
  // A form unless JSON is asked for, as GitHub has it.
  const answer = (value) => {
    if ((request.headers.accept ?? '').includes('application/json')) return json(response, 200, value)
    response.writeHead(200, { 'content-type': 'application/x-www-form-urlencoded' })
    response.end(new URLSearchParams(value).toString())
  }
  switch (`${request.method} ${url.hostname}${url.pathname}`) {
    case 'POST github.com/login/device/code': {
      const device = { id: random(), allowed: false }
      devices.set(device.id, device)
      return answer({ device_code: device.id, user_code: 'WXYZ-1234', verification_uri: 'https://github.com/login/device', expires_in: 899, interval: 1 })
    }
    case 'GET github.com/login/device':
      for (const device of devices.values()) device.allowed = true
      return html(response, 200, page('Device', 'Allowed.'))
    case 'GET github.com/login/oauth/authorize':
      return authorize(url, response, 'github.com')
    case 'POST github.com/login/oauth/access_token': {
      if (form.code && !redeem(form, response)) return
      if (!form.code && !devices.get(form.device_code)?.allowed) return answer({ error: 'authorization_pending' })
      const token = `gho_${randomBytes(18).toString('hex')}`
      report({ issued: 'github', refresh_sha256: createHash('sha256').update(token).digest('hex') })
      return answer({ access_token: token, token_type: 'bearer', scope: 'gist,read:org,repo' })
    }
    case 'POST api.github.com/graphql':
      return json(response, 200, { data: { viewer: { login: 'ada' } } })
    case 'GET api.github.com/user':
      return json(response, 200, { login: 'ada', id: 1 })
    case 'GET api.github.com/copilot_internal/user':
      return json(response, 200, { login: 'ada', access_type_sku: 'monthly_subscriber', copilot_plan: 'individual', chat_enabled: true, organization_list: [], organization_login_list: [], endpoints: { api: 'https://api.individual.githubcopilot.com' } })
    case 'GET api.github.com/':
      response.setHeader('x-oauth-scopes', 'gist, read:org, repo')
      return json(response, 200, {})
  }
  return json(response, 404, { message: 'Not Found' })
}

const hosts = [
  [/(^|\.)github\.com$/, github],
  [/(^|\.)openai\.com$/, openai],
  [/(^|\.)(claude\.ai|claude\.com|anthropic\.com)$/, anthropic],
  [/(^|\.)(google\.com|googleapis\.com)$/, google],
]

const server = createServer({ cert: readFileSync(options.cert), key: readFileSync(options.key) }, async (request, response) => {
  const host = (request.headers.host ?? '').replace(/:\d+$/, '')
  const url = new URL(request.url, `https://${host}`)
  let body = ''
  for await (const piece of request) {
    body += piece
    if (body.length > 65536) return request.destroy()
  }
  const isForm = (request.headers['content-type'] ?? '').startsWith('application/x-www-form-urlencoded')
  let form = {}
  try {
    form = isForm ? Object.fromEntries(new URLSearchParams(body)) : body ? JSON.parse(body) : {}
  } catch {
    return json(response, 400, { error: 'invalid_request' })
  }
  const bearer = request.headers.authorization?.replace(/^\S+ +/, '')
  const used_sha256 = bearer && createHash('sha256').update(bearer).digest('hex')
  report({ called: `${request.method} ${host}${url.pathname}`, grant: form.grant_type, used_sha256 })
  if (url.pathname === '/mock/go') {
    response.writeHead(302, { location: url.searchParams.get('to') })
    return response.end()
  }
  if (options.fault === '500' && request.method === 'POST') return json(response, 500, { error: 'server_error' })
  if (options.fault === 'drop' && request.method === 'POST') return request.socket.destroy()
  if (options.fault === 'slow' && request.method === 'POST') await new Promise((done) => setTimeout(done, 20000))
  const stand = hosts.find(([pattern]) => pattern.test(host))?.[1]
  if (!stand) return json(response, 404, { error: 'no such host here' })
  return stand(request, url, response, form)
})

const proxy = createProxy().on('connect', (_, from, head) => {
  const to = connect(server.address().port, '127.0.0.1', () => {
    from.write('HTTP/1.1 200 OK\r\n\r\n')
    to.write(head)
    from.pipe(to).pipe(from)
  })
  from.on('error', () => to.destroy())
  to.on('error', () => from.destroy())
})
server.listen(0, '127.0.0.1', () =>
  proxy.listen(0, '127.0.0.1', () => report({ port: server.address().port, proxy: proxy.address().port })))
process.stdin.on('end', () => process.exit(0)).resume()
