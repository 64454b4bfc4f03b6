// The sign-in page as a link that says where it leads.

import { breakable, element, icon } from '../dom';

/** The address, if a browser may open it as a page. */
export function pageAddress(url: string): URL | undefined {
  try {
    const address = new URL(url);
    return address.protocol === 'https:' || address.protocol === 'http:' ? address : undefined;
  } catch {
    return undefined;
  }
}

export class PageLink {
  readonly root: HTMLElement;
  readonly #name = element('span');
  readonly #link = element('a', {
    class: 'button primary', target: '_blank', rel: 'noopener noreferrer',
  }, this.#name, icon('external'), element('span', { class: 'visually-hidden' }, ' (in a new tab)'));
  readonly #start = element('strong');
  readonly #check = element('p', { class: 'check' }, 'It opens in a new tab and leads to ', this.#start);
  readonly #refused = element('p', { class: 'check', hidden: true },
    'The tool gave an address that is not a web page, so it cannot be opened here.');

  constructor() {
    this.root = element('div', { class: 'page-link' }, this.#link, this.#check, this.#refused);
  }

  update(url: string): void {
    const address = pageAddress(url);
    this.#link.hidden = this.#check.hidden = address === undefined;
    this.#refused.hidden = address !== undefined;
    if (!address) {
      this.#link.removeAttribute('href');
      return;
    }
    // Only where it differs, or a screen reader would announce it again.
    if (this.#link.href === address.href) return;
    this.#link.href = address.href;
    this.#name.replaceChildren('Open ', ...breakable(address.host));
    this.#start.replaceChildren(...breakable(`${address.origin}/`));
  }

  focus(): void {
    this.#link.focus({ preventScroll: true });
  }
}
