// Plays an end user's own browser for a sign-in that shows a code at its end: opens the address at the
// mock, allows, and prints the code. node visit.mjs --url URL --port PORT --authority PEM
import { readFileSync } from 'node:fs'
import { request } from 'node:https'
import { parseArgs } from 'node:util'

const { values: options } = parseArgs({
  options: { url: { type: 'string' }, port: { type: 'string' }, authority: { type: 'string' } },
})
const ca = readFileSync(options.authority)

/** The page at an address, all hosts being the mock, with their own names and certificates. */
const get = (url) =>
  new Promise((done, failed) => {
    const { hostname, pathname, search } = new URL(url)
    const asked = request({
      host: '127.0.0.1', port: Number(options.port), servername: hostname, ca,
      path: pathname + search, headers: { host: hostname },
    }, async (response) => {
      if (response.headers.location) return done(get(new URL(response.headers.location, url).href))
      let text = ''
      for await (const piece of response) text += piece
      done(text)
    })
    asked.on('error', failed)
    asked.end()
  })

const first = await get(options.url)
const next = first.match(/name=to value="([^"]*)"/)?.[1].replaceAll('&amp;', '&')
const last = next ? await get(next) : first
const code = last.match(/id=code>([^<]*)/)?.[1] ?? ''
process.stdout.write(`${code}\n`)
