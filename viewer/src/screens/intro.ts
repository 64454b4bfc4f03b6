// Before anything is typed: who runs this, what it is for, who can open the credential, how it ends.

import { element, icon, mark, setText, type IconName } from '../dom';
import type { SessionView } from '../session';
import { clockTime, credentialOwner, stateLabel, STEPS, stepIndex, termsMessage, visitNotice } from '../ui-strings';

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
      ? 'You sign in on a disposable desktop that exists only for this sign-in. Before you type anything:'
      : 'You sign in on a page in your own browser. The tool itself runs on a disposable computer that exists only for this sign-in. Before you continue:'),
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
      ? 'Ready when you are.'
      : `Step ${step + 1} of ${STEPS.length}: ${stateLabel(now.state)}`);
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
  const onDesktop = session.method === 'browser';
  return [
    ['user', 'Run by', `${session.operator.name}. ${onDesktop ? 'What you type goes to' : 'The tool runs on'} a computer of theirs: continue only if you trust them.`],
    ['tool', 'Sign-in for', `${session.provider.name}. Check the address at the top of the ${onDesktop ? 'desktop' : 'page'} before you type a password.`],
    ...passkeys(onDesktop),
    ['key', 'Credential', `It is sealed inside the sign-in desktop. It can be opened by ${credentialOwner(session)}.`],
    ...terms(session),
    ['flame', 'Sign-in desktop', end],
  ];
}

function terms(session: SessionView): [IconName, string, string][] {
  const text = termsMessage(session);
  return text !== undefined && !session.credential.terms?.overridden ? [['key', 'Terms', text]] : [];
}

/** The guest's browser has no WebAuthn: its pages offer no passkey, and the end user may wonder why. */
function passkeys(onDesktop: boolean): [IconName, string, string][] {
  return onDesktop
    ? [['key', 'Passkeys', 'Passkeys do not work here, because this desktop cannot ask your device for one. Choose a password or a code on the page.']]
    : [];
}

function warnings(session: SessionView): HTMLElement[] {
  const shown: HTMLElement[] = [];
  const visits = visitNotice(session, Date.now());
  if (visits !== undefined) {
    shown.push(element('p', { class: 'notice', role: 'alert' }, icon('user'), element('span', {}, visits)));
  }
  if (session.credential.terms?.overridden) {
    shown.push(element('p', { class: 'notice danger', role: 'alert' }, icon('warning'), element('span', {}, termsMessage(session) ?? '')));
  }
  if (session.isolation === 'none') {
    shown.push(element('p', { class: 'notice danger', role: 'alert' }, icon('warning'), element('span', {},
      element('strong', {}, 'No isolation. '),
      `There is no virtual machine: ${session.method === 'browser' ? 'the browser' : 'the tool'} runs directly on the computer that serves this page. This is for tests. Do not sign in with a real account.`)));
  }
  if (session.emulated && session.state !== 'awaiting_user') {
    shown.push(element('p', { class: 'notice' }, icon('clock'), element('span', {},
      `This computer is emulated and slow: it takes about a minute until the ${session.method === 'browser' ? 'page' : 'link'} appears.`)));
  }
  return shown;
}
