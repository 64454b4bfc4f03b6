// The card for those who sign in with their own browser: the page, and the code that goes there or
// comes from there.

import { Problem } from '../api';
import { element, icon, setText } from '../dom';
import type { AwaitingView, SessionView } from '../session';
import { sentence } from '../ui-strings';
import { CodeForm } from './code-form';
import { DeviceCode } from './device-code';
import { PageLink } from './page-link';
import { codeNews, hostNews } from './news';

export interface CardActions {
  /** Rejects with a Problem when the code is refused. */
  onCode: (code: string) => Promise<void>;
  /** Has the desktop show the page, or takes the desktop away again. */
  onDesktop: (shown: boolean) => Promise<void>;
}

export class SignInCard {
  readonly root: HTMLElement;
  readonly #actions: CardActions;
  readonly #instructions = element('p', { class: 'lead' });
  readonly #news = element('p', { class: 'notice danger', role: 'alert', hidden: true });
  readonly #page = new PageLink();
  readonly #device = new DeviceCode();
  readonly #form: CodeForm;
  readonly #deviceMove: HTMLElement;
  readonly #codeMove: HTMLElement;
  readonly #then = element('p', { class: 'check' });
  readonly #desktop = element('button', { type: 'button', class: 'quiet', onclick: () => void this.#toggleDesktop() });
  readonly #desktopProblem = element('p', { class: 'count over', role: 'alert' });
  #desktopShown = false;

  constructor(session: SessionView, actions: CardActions) {
    this.#actions = actions;
    this.#form = new CodeForm((code) => actions.onCode(code));
    this.#deviceMove = element('li', {}, element('h3', {}, 'Enter this code there'), this.#device.root);
    this.#codeMove = element('li', {}, element('h3', {}, 'Paste the code here'), this.#form.root);
    this.root = element('section', { class: 'sign-in', 'aria-labelledby': 'sign-in-title' },
      element('h2', { id: 'sign-in-title' }, `Sign in to ${session.provider.name}`),
      this.#instructions, this.#news,
      element('ol', { class: 'moves' },
        element('li', {}, element('h3', {}, 'Open the page'), this.#page.root),
        this.#deviceMove, this.#codeMove),
      this.#then,
      element('div', { class: 'actions' }, this.#desktop, this.#desktopProblem));
    this.showDesktop(false);
  }

  update(awaiting: AwaitingView, session: SessionView): void {
    const url = awaiting.url ?? '';
    setText(this.#instructions, sentence(awaiting.instructions));
    this.#page.update(url);
    this.#deviceMove.hidden = !awaiting.code;
    if (awaiting.code) this.#device.update(awaiting.code, url);
    this.#codeMove.hidden = !awaiting.takesCode;
    setText(this.#then, awaiting.takesCode ? '' : 'When that page says that you are done, this page continues by itself.');
    if (awaiting.takesCode) this.#form.update(session.timeline);
    // A message about a code is shown at its field.
    const ofCode = awaiting.takesCode ? undefined : codeNews(session.timeline).message;
    const news = ofCode ?? hostNews(session.timeline);
    this.#news.hidden = news === undefined;
    // A host may be needed for nothing, or be there again in a moment.
    this.#news.classList.toggle('danger', ofCode !== undefined);
    setText(this.#news, news ?? '');
  }

  /** Whether the desktop is beside the card. */
  showDesktop(shown: boolean): void {
    this.#desktopShown = shown;
    this.#desktop.replaceChildren(icon('desktop'), shown ? 'Hide the desktop' : 'Use the desktop’s browser instead');
  }

  /** The end user's turn is over. */
  clear(): void {
    this.#form.clear();
  }

  focus(): void {
    this.#page.focus();
  }

  async #toggleDesktop(): Promise<void> {
    this.#desktop.disabled = true;
    setText(this.#desktopProblem, '');
    try {
      await this.#actions.onDesktop(!this.#desktopShown);
    } catch (error) {
      setText(this.#desktopProblem, error instanceof Problem
        ? sentence(error.detail || error.title)
        : 'The server does not respond. Try again.');
    } finally {
      this.#desktop.disabled = false;
      this.#desktop.focus();
    }
  }
}
