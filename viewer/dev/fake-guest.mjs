// A FAKE guest: a page that draws a desktop with a sign-in form on a canvas, streams it over WebRTC
// and reads the viewer's input. For tests and screenshots of the viewer and of demo/end-user only.

import { layout } from '../../demo/oidc-provider/sign-in-page.mjs';

/**
 * Makes the guest in a page of `context`.
 * @param {import('playwright-core').BrowserContext} context
 * @param {string} origin the fake server's
 * @param {{password?: string, onSignedIn?: () => void}} options
 */
export async function startFakeGuest(context, origin, { password = 'correct horse', onSignedIn = () => {} } = {}) {
  const page = await context.newPage();
  await page.goto(`${origin}/fake-guest`);
  await page.exposeFunction('signedIn', onSignedIn);
  await page.evaluate(drawDesktop, { layout, password });
  return {
    page,
    answer: (sdp) => page.evaluate((offer) => window.fakeGuest.answer(offer), sdp),
    show: (name) => page.evaluate((screen) => window.fakeGuest.show(screen), name),
    messages: () => page.evaluate(() => window.fakeGuest.messages),
    sendCursor: (message) => page.evaluate((data) => window.fakeGuest.sendCursor(data), message),
    drop: () => page.evaluate(() => window.fakeGuest.drop()),
  };
}

// Runs in the page: it may use nothing from outside.
function drawDesktop({ layout, password }) {
  const BAR = 86;
  const canvas = Object.assign(document.createElement('canvas'), { width: 1280, height: 720 });
  document.body.append(canvas);
  const pen = canvas.getContext('2d');
  const rgb = (colour) => `rgb(${colour.join(',')})`;
  const state = { screen: 'desktop', email: '', password: '', focus: 'email', wrong: false, pointer: { x: 0, y: 0 } };
  const messages = [];
  const held = new Set();
  let connection;
  let cursorOpened;
  // The viewer may be called connected before its channel for the cursor is here.
  const cursorChannel = new Promise((resolve) => { cursorOpened = resolve; });

  function draw() {
    pen.fillStyle = '#2b3440';
    pen.fillRect(0, 0, 1280, 720);
    if (state.screen !== 'desktop') drawBrowser();
  }

  function drawBrowser() {
    pen.fillStyle = '#dfe3e8';
    pen.fillRect(0, 0, 1280, BAR);
    pen.fillStyle = '#fff';
    pen.fillRect(90, 46, 1100, 30);
    text('accounts.anteroom.test', 104, 67, '#16202e', 15);
    pen.fillStyle = state.screen === 'done' ? '#fff' : '#f3f5f9';
    pen.fillRect(0, BAR, 1280, 720 - BAR);
    if (state.screen === 'done') {
      text('You are signed in', 420, 240, '#16202e', 30);
      return;
    }
    pen.fillStyle = rgb(layout.band.colour);
    pen.fillRect(0, BAR, 1280, layout.band.height);
    text('Anteroom demo', 440, BAR + 56, '#fff', 22);
    if (state.wrong) fillBox(layout.problem, rgb(layout.problem.colour));
    field(layout.email, state.email, state.focus === 'email');
    field(layout.password, '•'.repeat(state.password.length), state.focus === 'password');
    fillBox(layout.submit, rgb(layout.band.colour));
  }

  const topOf = (box) => BAR + layout.band.height + box.top;
  function fillBox(box, colour) {
    pen.fillStyle = colour;
    pen.fillRect(640 - box.width / 2, topOf(box), box.width, box.height);
  }
  function field(box, value, focused) {
    // The page draws its focus as an outline around the field.
    if (focused) fillBox({ top: box.top - 2, width: box.width + 4, height: box.height + 4 }, rgb(layout.band.colour));
    fillBox(box, focused ? rgb(layout.band.colour) : '#76849a');
    pen.fillStyle = '#fff';
    pen.fillRect(640 - box.width / 2 + 2, topOf(box) + 2, box.width - 4, box.height - 4);
    text(value, 640 - box.width / 2 + 12, topOf(box) + 28, '#16202e', 16);
  }
  function text(value, x, y, colour, size) {
    pen.font = `${size}px sans-serif`;
    pen.fillStyle = colour;
    pen.fillText(value, x, y);
  }

  const SHIFTED = { Digit2: '@', Digit1: '!' };
  const PLAIN = { Space: ' ', Period: '.', Minus: '-' };
  function character(code) {
    const shift = held.has('ShiftLeft') || held.has('ShiftRight');
    if (code.startsWith('Key')) return shift ? code[3] : code[3].toLowerCase();
    if (shift && SHIFTED[code]) return SHIFTED[code];
    if (code.startsWith('Digit')) return code[5];
    return PLAIN[code];
  }

  function submit() {
    if (state.password === password) {
      state.screen = 'done';
      window.signedIn();
    } else {
      Object.assign(state, { wrong: true, password: '', focus: 'password' });
    }
  }

  function click() {
    for (const name of ['email', 'password']) {
      const box = layout[name];
      const { x, y } = state.pointer;
      if (Math.abs(x - 640) < box.width / 2 && y > topOf(box) && y < topOf(box) + box.height) state.focus = name;
    }
  }

  function key(code) {
    if (code === 'Tab') state.focus = 'password';
    else if (code === 'Enter') submit();
    else if (code === 'Backspace') state[state.focus] = state[state.focus].slice(0, -1);
    else if (code === 'KeyA' && held.has('ControlLeft')) state[state.focus] = '';
    else state[state.focus] += character(code) ?? '';
  }

  function take(message) {
    messages.push(message);
    if (message.type === 'pointer_move') state.pointer = message;
    if (message.type === 'pointer_button' && message.pressed) click();
    if (message.type === 'text' || message.type === 'paste') state[state.focus] += message.text;
    if (message.type === 'release_all') held.clear();
    if (message.type === 'key') {
      if (message.pressed) { held.add(message.code); key(message.code); } else held.delete(message.code);
    }
    draw();
  }

  async function answer(sdp) {
    connection?.close();
    connection = new RTCPeerConnection();
    const [track] = canvas.captureStream(15).getVideoTracks();
    // As a screen: full size always, or input would be off by the scale.
    track.contentHint = 'detail';
    const sender = connection.addTrack(track);
    connection.addEventListener('datachannel', ({ channel }) => {
      if (channel.label === 'cursor') {
        if (channel.readyState === 'open') cursorOpened(channel);
        else channel.addEventListener('open', () => cursorOpened(channel));
      }
      if (channel.label === 'input') channel.addEventListener('message', (event) => take(JSON.parse(event.data)));
    });
    await connection.setRemoteDescription({ type: 'offer', sdp });
    await connection.setLocalDescription();
    await sender.setParameters({ ...sender.getParameters(), degradationPreference: 'maintain-resolution' });
    await new Promise((resolve) => {
      const look = () => connection.iceGatheringState === 'complete' && resolve();
      connection.addEventListener('icegatheringstatechange', look);
      look();
    });
    return connection.localDescription.sdp;
  }

  // A canvas streams only what is drawn: draw again, or a late viewer would see nothing.
  setInterval(draw, 200);
  draw();
  window.fakeGuest = {
    answer,
    messages,
    show: (screen) => { state.screen = screen; draw(); },
    sendCursor: async (message) => (await cursorChannel).send(JSON.stringify(message)),
    drop: () => connection.close(),
  };
}
