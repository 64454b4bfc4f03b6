// <anteroom-style>: a <style> whose text becomes a sheet made by script, which the page's policy
// allows. xterm.js is built to use it: see xterm-under-policy.ts.

export class SheetStyle extends HTMLElement {
  readonly #sheet = new CSSStyleSheet();

  override get textContent(): string {
    return [...this.#sheet.cssRules].map(({ cssText }) => cssText).join('\n');
  }

  override set textContent(css: string | null) {
    this.#sheet.replaceSync(css ?? '');
  }

  connectedCallback(): void {
    document.adoptedStyleSheets = [...document.adoptedStyleSheets, this.#sheet];
  }

  disconnectedCallback(): void {
    document.adoptedStyleSheets = document.adoptedStyleSheets.filter((sheet) => sheet !== this.#sheet);
  }
}

export function defineSheetStyle(): void {
  if (!customElements.get('anteroom-style')) customElements.define('anteroom-style', SheetStyle);
}
