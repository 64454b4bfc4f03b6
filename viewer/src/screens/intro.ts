// Before anything is typed: who runs this, what for, who can open the result, how it ends.

import { element, icon, mark, setText, type IconName } from '../dom';
import type { SessionView } from '../session';
import { clockTime, credentialOwner, stateWords, STEPS, stepIndex, termsWords, visitWords } from '../words';

export interface IntroScreen {
  root: HTMLElement;
  update: (session: SessionView) => void;
}

export function introScreen(session: SessionView, onContinue: () => void): IntroScreen {
  const progress = element('p', { class: 'intro-progress', role: 'status' });
  const button = element('button', {
    type: 'button', class: 'primary', 'data-action': 'continue', onclick: onContinue,
  }, 'Continue');
  const root = element('main', { class: 'card intro', 'aria-labelledby': 'intro-title' },
    element('div', { class: 'brand' }, mark(), 'Anteroom'),
    element('h1', { id: 'intro-title' }, `Sign in to ${session.provider.name}`),
    element('p', { class: 'lead' }, session.method === 'browser'
      ? 'You sign in on a disposable computer that was made for this one sign-in. Before you type anything:'
      : 'You sign in on a page in your own browser. The tool that needs it runs on a disposable computer that was made for this one sign-in. Before you go on:'),
    ...warnings(session),
    element('dl', { class: 'facts' }, ...facts(session).flatMap(([name, term, text]) => [
      element('dt', {}, icon(name), term),
      element('dd', {}, text),
    ])),
    element('div', { class: 'actions' }, button, progress),
  );
  const update = (now: SessionView) => {
    const step = stepIndex(now.state);
    setText(progress, now.state === 'awaiting_user'
      ? 'Your room is ready.'
      : `Step ${step + 1} of ${STEPS.length}: ${stateWords(now.state)}`);
    progress.classList.toggle('ready', now.state === 'awaiting_user');
  };
  update(session);
  return { root, update };
}

function facts(session: SessionView): [IconName, string, string][] {
  const latest = clockTime(session.deadline, session, Date.now());
  const end = session.isolation === 'vm'
    ? `It is destroyed when you are signed in, when you cancel, or at ${latest} at the latest.`
    : `The desktop is closed when you are signed in, when you cancel, or at ${latest} at the latest.`;
  const inRoom = session.method === 'browser';
  return [
    ['person', 'Run by', `${session.operator.name}. ${inRoom ? 'What you type goes to' : 'The sign-in is for a tool on'} a computer they run: go on only if you trust them.`],
    ['tool', 'Sign-in for', `${session.provider.name}. Check the address at the top of the ${inRoom ? 'picture' : 'page'} before you type a password.`],
    ...passkeys(inRoom),
    ['key', 'Credential', `It is sealed inside the room. It can be opened by ${credentialOwner(session)}.`],
    ...terms(session),
    ['flame', 'The room', end],
  ];
}

function terms(session: SessionView): [IconName, string, string][] {
  const words = termsWords(session);
  return words !== undefined && !session.credential.terms?.overridden ? [['key', 'Terms', words]] : [];
}

/** The room's browser has no WebAuthn: its pages offer none, and a person may wonder. */
function passkeys(inRoom: boolean): [IconName, string, string][] {
  return inRoom
    ? [['tool', 'Passkeys', 'They do not work here: this computer cannot ask your device for one. Choose a password or a code on the page.']]
    : [];
}

function warnings(session: SessionView): HTMLElement[] {
  const shown: HTMLElement[] = [];
  const visits = visitWords(session, Date.now());
  if (visits !== undefined) {
    shown.push(element('p', { class: 'notice', role: 'alert' }, icon('person'), element('span', {}, visits)));
  }
  if (session.credential.terms?.overridden) {
    shown.push(element('p', { class: 'notice danger', role: 'alert' }, icon('warning'), element('span', {}, termsWords(session) ?? '')));
  }
  if (session.isolation === 'none') {
    shown.push(element('p', { class: 'notice danger', role: 'alert' }, icon('warning'), element('span', {},
      element('strong', {}, 'No isolation. '),
      `There is no virtual machine: ${session.method === 'browser' ? 'the browser' : 'the tool'} runs directly on the computer that serves this page. This is for tests. Do not sign in with a real account.`)));
  }
  if (session.emulated) {
    shown.push(element('p', { class: 'notice' }, icon('clock'), element('span', {},
      `This room is emulated: expect about a minute until the ${session.method === 'browser' ? 'page' : 'link'} is there, and slow answers.`)));
  }
  return shown;
}
