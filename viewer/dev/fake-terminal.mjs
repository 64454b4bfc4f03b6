// A FAKE tool's terminal, for the viewer's own tests and screenshots only: as much of a WebSocket
// server (RFC 6455) as one viewer needs, and the screen that it draws.

import { createHash } from 'node:crypto';

const GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11';
const TEXT = 1;
const BINARY = 2;
const CLOSE = 8;

export function makeFakeTerminal() {
  const sockets = new Set();
  let screen = '';
  let connections = 0;
  let typed = '';
  return {
    /** Takes a connection over, as http's `upgrade` event hands it on. */
    accept(request, socket) {
      connections += 1;
      const answer = createHash('sha1').update(request.headers['sec-websocket-key'] + GUID).digest('base64');
      socket.write(`HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ${answer}\r\n\r\n`);
      sockets.add(socket);
      const gone = () => sockets.delete(socket);
      socket.on('close', gone).on('error', gone);
      let rest = Buffer.alloc(0);
      socket.on('data', (bytes) => {
        rest = Buffer.concat([rest, bytes]);
        for (let message; (message = firstMessage(rest)); rest = rest.subarray(message.length)) {
          if (message.kind === CLOSE) socket.end();
          else if (message.kind === BINARY) typed += message.content;
          else if (message.kind === TEXT) throw new Error('the viewer sent text where bytes are asked for');
        }
      });
      socket.write(binary(screen));
    },
    /** Draws, here and for whoever connects later. */
    draw(text) {
      screen += text;
      for (const socket of sockets) socket.write(binary(text));
    },
    /** An empty screen from now on, for whoever connects next. */
    forget: () => { screen = ''; },
    /** How often a viewer connected, and how many are there now. */
    connections: () => connections,
    connected: () => sockets.size,
    typed: () => typed,
    drop() {
      for (const socket of sockets) socket.destroy();
    },
  };
}

function binary(text) {
  const content = Buffer.from(text);
  // A length in more bytes than it needs is refused.
  const { length } = content;
  const head = length < 126 ? [length] : [126, length >> 8, length & 0xff];
  return Buffer.concat([Buffer.from([0x80 | BINARY, ...head]), content]);
}

/** The first whole message, if there is one; a viewer masks what it sends. */
function firstMessage(bytes) {
  if (bytes.length < 2) return undefined;
  const short = bytes[1] & 0x7f;
  const at = short === 126 ? 4 : 2;
  if (bytes.length < at) return undefined;
  const size = short === 126 ? bytes.readUInt16BE(2) : short;
  const length = at + 4 + size;
  if (bytes.length < length) return undefined;
  const mask = bytes.subarray(at, at + 4);
  const content = bytes.subarray(at + 4, length).map((byte, index) => byte ^ mask[index % 4]);
  return { kind: bytes[0] & 0x0f, content: Buffer.from(content).toString(), length };
}
