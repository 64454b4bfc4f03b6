// The provider's sign-in page. Its places and colours are fixed, so that a program that only sees
// pixels (demo/end-user, the demonstration's timing) can recognise the page and find its fields.

/** Colours as [red, green, blue]; lengths in CSS pixels. */
export const layout = Object.freeze({
  /** The full-width band at the top of the page. */
  band: Object.freeze({ colour: Object.freeze([0x14, 0x46, 0xa0]), height: 96 }),
  /** Boxes: distance from the band's lower edge to the box's top; all are centred sideways. */
  problem: Object.freeze({ top: 86, height: 40, width: 400, colour: Object.freeze([0xb3, 0x26, 0x1e]) }),
  email: Object.freeze({ top: 164, height: 44, width: 400 }),
  password: Object.freeze({ top: 242, height: 44, width: 400 }),
  submit: Object.freeze({ top: 306, height: 48, width: 400 }),
});

const hex = (colour) => `#${colour.map((part) => part.toString(16).padStart(2, '0')).join('')}`;

const box = ({ top, height, width }) =>
  `position:absolute;top:${top}px;left:calc(50% - ${width / 2}px);width:${width}px;height:${height}px`;

const above = ({ top, width }, height) => box({ top: top - height, height, width });

// The page is laid out once and never moves: no web fonts, transitions or images.
export const STYLE = `
*{box-sizing:border-box}
html{background:#f3f5f9;color:#16202e;font:16px/1.4 "DejaVu Sans",system-ui,sans-serif}
body{margin:0}
header{height:${layout.band.height}px;background:${hex(layout.band.colour)};color:#fff}
header div{max-width:400px;height:100%;margin:0 auto;display:flex;align-items:center;font-size:22px;font-weight:700}
main{position:relative;height:440px;min-width:400px}
h1{${box({ top: 20, height: 32, width: 400 })};margin:0;font-size:23px;line-height:32px}
.asks{${box({ top: 54, height: 24, width: 400 })};margin:0;color:#465468;font-size:14px;line-height:24px;white-space:nowrap}
.problem{${box(layout.problem)};margin:0;padding:0 12px;border-radius:4px;background:${hex(layout.problem.colour)};color:#fff;line-height:40px;font-weight:700}
label{line-height:26px;font-weight:700;font-size:14px}
label[for=email]{${above(layout.email, 26)}}
label[for=password]{${above(layout.password, 26)}}
input{padding:0 12px;border:1px solid #76849a;border-radius:4px;background:#fff;color:#16202e;font:inherit}
input:focus{outline:2px solid ${hex(layout.band.colour)};outline-offset:0}
#email{${box(layout.email)}}
#password{${box(layout.password)}}
button{border-radius:4px;font:inherit;font-weight:700;cursor:pointer}
button:focus-visible{outline:3px solid #0b1930;outline-offset:2px}
.submit{${box(layout.submit)};border:0;background:${hex(layout.band.colour)};color:#fff}
.cancel{${box({ top: 360, height: 40, width: 400 })};border:0;background:none;color:${hex(layout.band.colour)}}
.note{${box({ top: 406, height: 24, width: 400 })};margin:0;color:#465468;font-size:13px;text-align:center}
`;

/** Has the form report to the provider whether the browser takes itself for online, as pages ask. */
export const SCRIPT = 'document.querySelector("[name=online]").value = navigator.onLine';

/** Escapes text for HTML content and quoted attributes. */
export function escapeHtml(text) {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}

/**
 * The sign-in page.
 * @param {{action: string, cancelAction: string, clientName: string, email: string, problem?: string}} page
 */
export function signInPage({ action, cancelAction, clientName, email, problem }) {
  // After a mistake the e-mail stands already; the password is what has to be typed again.
  const [emailFocus, passwordFocus] = problem && email ? ['', ' autofocus'] : [' autofocus', ''];
  // `novalidate`: the server says what is missing; the browser's bubble for it lies over the next field.
  return document(
    'Sign in · Anteroom demo',
    `<h1>Sign in</h1>
<p class="asks">${escapeHtml(clientName)} will see your e-mail and stay signed in.</p>
${problem ? `<p class="problem" role="alert" id="problem">${escapeHtml(problem)}</p>` : ''}
<form method="post" action="${escapeHtml(action)}" novalidate>
<label for="email">E-mail</label>
<input id="email" name="email" type="email" autocomplete="username" required maxlength="254" value="${escapeHtml(email)}"${emailFocus}>
<label for="password">Password</label>
<input id="password" name="password" type="password" autocomplete="current-password" required maxlength="256"${problem ? ' aria-describedby="problem"' : ''}${passwordFocus}>
<input name="online" type="hidden">
<button class="submit" type="submit">Sign in and allow</button>
</form>
<form method="post" action="${escapeHtml(cancelAction)}"><button class="cancel" type="submit">Do not allow, go back</button></form>
<p class="note">A demonstration: no real account is behind it.</p>
<script>${SCRIPT}</script>`,
  );
}

/** A page that only says something went wrong. */
export function problemPage(title, text) {
  return document(title, `<h1>${escapeHtml(title)}</h1><p class="asks">${escapeHtml(text)}</p>`);
}

function document(title, main) {
  return `<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width,initial-scale=1">
<title>${escapeHtml(title)}</title><link rel="icon" href="data:,"><style>${STYLE}</style></head>
<body><header><div>Anteroom demo</div></header><main>
${main}
</main></body></html>
`;
}
