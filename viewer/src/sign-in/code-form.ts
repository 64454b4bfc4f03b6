// The field for the code that the last page shows, until the tool has taken it.

import { Problem } from '../api';
import { element, setText } from '../dom';
import type { TimelineEntry } from '../session';
import { sentence } from '../ui-strings';
import { codeNews, type CodeNews } from './news';

/** How long the tool may take to react to a code before the field is free again, in milliseconds. */
const SILENCE_MS = 30_000;

type State =
  | { name: 'free' }
  /** On its way, or with the tool; `before` is when the last code before it was entered. */
  | { name: 'checking'; before: number | undefined };

export class CodeForm {
  readonly root: HTMLFormElement;
  readonly #send: (code: string) => Promise<void>;
  readonly #field = element('input', {
    id: 'code', type: 'text', autocomplete: 'off', spellcheck: false, autocapitalize: 'off',
    'aria-describedby': 'code-refused', oninput: () => this.#show(),
  });
  readonly #submit = element('button', { type: 'submit', class: 'primary' }, 'Send the code');
  readonly #status = element('p', { class: 'count', role: 'status' });
  readonly #refused = element('p', { id: 'code-refused', class: 'notice danger', role: 'alert', hidden: true });
  #state: State = { name: 'free' };
  #news: CodeNews = {};
  /** Why the last code was not sent. */
  #problem: string | undefined;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(send: (code: string) => Promise<void>) {
    this.#send = send;
    this.root = element('form', { class: 'code-form' },
      this.#refused,
      element('label', { for: 'code' }, 'The code that the page shows at the end'),
      element('div', { class: 'code-row' }, this.#field, this.#submit),
      this.#status);
    this.root.addEventListener('submit', (event) => {
      event.preventDefault();
      void this.#enter();
    });
    this.#show();
  }

  update(timeline: readonly TimelineEntry[]): void {
    this.#news = codeNews(timeline);
    const { enteredAt, message } = this.#news;
    // Something was said about this code, not about one before it.
    const isAnswered = this.#state.name === 'checking' && enteredAt !== this.#state.before && message !== undefined;
    if (isAnswered) {
      this.#free();
      // The tool has looked at it; it is of no more use.
      this.#field.value = '';
      if (this.root.contains(document.activeElement)) this.#field.focus();
    }
    this.#show();
  }

  /** Leaves nothing of a code behind. */
  clear(): void {
    this.#free();
    this.#field.value = '';
    setText(this.#status, '');
    this.#show();
  }

  async #enter(): Promise<void> {
    const code = this.#field.value.trim();
    if (code === '' || this.#state.name === 'checking') return;
    this.#state = { name: 'checking', before: this.#news.enteredAt };
    this.#problem = undefined;
    setText(this.#status, 'Checking the code…');
    this.#show();
    try {
      await this.#send(code);
      if (this.#state.name === 'checking') this.#timer = setTimeout(() => this.#giveUpWaiting(), SILENCE_MS);
    } catch (error) {
      this.#free();
      this.#problem = refusalMessage(error);
      this.#show();
      this.#field.focus();
      this.#field.select();
    }
  }

  #giveUpWaiting(): void {
    this.#free();
    setText(this.#status, 'The tool has not reacted yet. Wait, or send the code again.');
    this.#show();
  }

  #free(): void {
    clearTimeout(this.#timer);
    this.#state = { name: 'free' };
    setText(this.#status, '');
  }

  #show(): void {
    const isChecking = this.#state.name === 'checking';
    // Not disabled, or the focus would be lost.
    this.#field.readOnly = isChecking;
    this.#submit.disabled = isChecking || this.#field.value.trim() === '';
    this.root.setAttribute('aria-busy', String(isChecking));
    const refused = isChecking ? undefined : this.#problem ?? this.#news.message;
    this.#refused.hidden = refused === undefined;
    setText(this.#refused, refused ?? '');
    this.#field.setAttribute('aria-invalid', String(refused !== undefined));
  }
}

/** Why a code did not arrive, for the end user. */
export function refusalMessage(error: unknown): string {
  if (!(error instanceof Problem)) return 'The server does not respond. Check your connection, then send the code again.';
  return error.status === 504
    ? 'The sign-in desktop did not respond in time. Send the code again.'
    : sentence(error.detail || error.title);
}
