// The code that the page asks for, to be read and to be copied.

import { element, icon, setText } from '../dom';
import { pageAddress } from './page-link';

/** How long the button says that it copied, in milliseconds. */
const COPIED_MS = 3_000;

export class DeviceCode {
  readonly root: HTMLElement;
  readonly #code = element('code', { class: 'device-code' });
  readonly #copied = element('span', { class: 'count', role: 'status' });
  readonly #advice = element('p', { class: 'check' });
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor() {
    this.root = element('div', {},
      element('div', { class: 'device-code-row' },
        this.#code,
        element('button', { type: 'button', class: 'quiet', onclick: () => void this.#copy() },
          icon('copy'), 'Copy', element('span', { class: 'visually-hidden' }, ' the code')),
        this.#copied),
      this.#advice);
  }

  update(code: string, url: string): void {
    setText(this.#code, code);
    const host = pageAddress(url)?.host;
    setText(this.#advice, host === undefined
      ? 'It gives access to your account: do not show it to anyone.'
      : `It gives access to your account: enter it at ${host} and nowhere else, whoever asks for it.`);
  }

  async #copy(): Promise<void> {
    let status = 'Copied';
    try {
      await navigator.clipboard.writeText(this.#code.textContent ?? '');
    } catch {
      // Without https, or forbidden: copying by keyboard still works.
      getSelection()?.selectAllChildren(this.#code);
      status = 'Selected: copy it with Ctrl+C';
    }
    setText(this.#copied, status);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => setText(this.#copied, ''), COPIED_MS);
  }
}
