// The page cannot show a session at all: why, and what to do.

import type { Problem } from '../api';
import { element, icon, mark } from '../dom';
import { sentence } from '../ui-strings';

export interface ProblemMessage {
  title: string;
  text: string;
  todo: string;
  /** Whether trying the same again can help. */
  retry: boolean;
}

export function problemMessage(problem: Problem | undefined): ProblemMessage {
  if (!problem) {
    return {
      title: 'The server does not respond',
      text: 'This page cannot reach its Anteroom server.',
      todo: 'Check your connection, then try again.',
      retry: true,
    };
  }
  const detail = sentence(problem.detail || problem.title);
  if (problem.code === 'viewer_revoked') {
    return {
      title: 'This link was closed',
      text: `${at(problem, 'It was revoked')}: a newer link to this sign-in was created, or all links were revoked. Nothing more of the sign-in is shown here.`,
      todo: 'Continue where the newer link is open. If you do not have one, ask for a new link.',
      retry: false,
    };
  }
  switch (problem.status) {
    case 410:
      return {
        title: 'This link has already been used',
        text: problem.at === undefined
          ? 'A link works once, in one browser. This one was opened before or has expired.'
          : `A link works once, in one browser. ${at(problem, 'This one was opened, or replaced by a newer one,')}.`,
        todo: 'If you opened it in another tab or browser, continue there. If not, ask for a new link: that closes whatever this one opened.',
        retry: false,
      };
    case 401:
    case 403:
      return {
        title: 'You do not have access to this sign-in',
        text: 'A sign-in opens only from its own link, and this browser has not opened it.',
        todo: 'Open the complete link that you were given. If you already did, ask for a new one.',
        retry: false,
      };
    case 404:
      return {
        title: 'This sign-in was not found',
        text: detail,
        todo: 'Check that you copied the complete link, or ask for a new one.',
        retry: false,
      };
    default:
      return {
        title: 'The sign-in cannot be shown',
        text: detail,
        todo: 'Try again. If it keeps happening, contact whoever gave you the link.',
        retry: true,
      };
  }
}

/** `text`, and when it happened. */
function at(problem: Problem, text: string): string {
  if (problem.at === undefined) return text;
  const time = new Date(problem.at).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
  return `${text} at ${time}`;
}

export function problemScreen(message: ProblemMessage): HTMLElement {
  return element('main', { class: 'card problem', 'aria-labelledby': 'problem-title' },
    element('div', { class: 'brand' }, mark(), 'Anteroom'),
    element('div', { class: 'seal bad' }, icon('warning')),
    element('h1', { id: 'problem-title', tabIndex: -1 }, message.title),
    element('p', { class: 'lead' }, message.text),
    element('p', {}, message.todo),
    ...(message.retry ? [element('div', { class: 'actions' },
      element('button', { type: 'button', class: 'primary', onclick: () => location.reload() }, 'Try again'))] : []),
  );
}
