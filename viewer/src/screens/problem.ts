// The page cannot show a session at all: why, and what to do.

import type { Problem } from '../api';
import { element, icon, mark } from '../dom';
import { sentence } from '../words';

export interface ProblemWords {
  title: string;
  text: string;
  todo: string;
  /** Whether trying the same again can help. */
  retry: boolean;
}

export function problemWords(problem: Problem | undefined): ProblemWords {
  if (!problem) {
    return {
      title: 'The server does not answer',
      text: 'This page cannot reach the Anteroom that made it.',
      todo: 'Check your connection, then try again.',
      retry: true,
    };
  }
  const detail = sentence(problem.detail || problem.title);
  if (problem.code === 'viewer_revoked') {
    return {
      title: 'This link was closed',
      text: `${at(problem, 'It was revoked')}: a newer link to this sign-in was made, or every link was taken back. Nothing of the room is shown here any more.`,
      todo: 'Go on where the newer link is opened. If you have none, ask for a new link.',
      retry: false,
    };
  }
  switch (problem.status) {
    case 410:
      return {
        title: 'This link is used up',
        text: problem.at === undefined
          ? 'A link opens its room once, in one browser, and this one was opened before or is too old.'
          : `A link opens its room once, in one browser. ${at(problem, 'This one was opened, or replaced by a newer one,')}.`,
        todo: 'If it was you, in another tab or browser, go on there. If not, ask for a new link: it closes what this one opened.',
        retry: false,
      };
    case 401:
    case 403:
      return {
        title: 'This page may not see the room',
        text: 'The room opens only from its own link, and this browser does not have it.',
        todo: 'Open the link you were given, as a whole. If you have, ask for a new one.',
        retry: false,
      };
    case 404:
      return {
        title: 'There is no such room',
        text: detail,
        todo: 'Check that the whole link was copied, or ask for a new one.',
        retry: false,
      };
    default:
      return {
        title: 'The room cannot be shown',
        text: detail,
        todo: 'Try again. If it stays so, tell whoever gave you the link.',
        retry: true,
      };
  }
}

/** The words and when that was. */
function at(problem: Problem, words: string): string {
  if (problem.at === undefined) return words;
  const time = new Date(problem.at).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
  return `${words} at ${time}`;
}

export function problemScreen(words: ProblemWords): HTMLElement {
  return element('main', { class: 'card problem', 'aria-labelledby': 'problem-title' },
    element('div', { class: 'brand' }, mark(), 'Anteroom'),
    element('div', { class: 'seal bad' }, icon('warning')),
    element('h1', { id: 'problem-title', tabIndex: -1 }, words.title),
    element('p', { class: 'lead' }, words.text),
    element('p', {}, words.todo),
    ...(words.retry ? [element('div', { class: 'actions' },
      element('button', { type: 'button', class: 'primary', onclick: () => location.reload() }, 'Try again'))] : []),
  );
}
