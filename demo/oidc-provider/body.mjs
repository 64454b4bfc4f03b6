// The body of a request, as text and of a bounded size.

/** `what` is how a body that is too large is called. */
export async function readBody(request, maxBytes, what) {
  const chunks = [];
  let size = 0;
  for await (const chunk of request) {
    size += chunk.length;
    if (size > maxBytes) throw new Error(`the ${what} is larger than ${maxBytes} bytes`);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks).toString('utf8');
}
