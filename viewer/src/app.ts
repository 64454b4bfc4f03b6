// From the link to the end: which screen is shown, and what is connected behind it.

import { Problem, ViewerApi } from './api';
import { SessionFeed } from './feed';
import { element, mark } from './dom';
import { endedScreen, type EndedScreen } from './screens/ended';
import { introScreen, type IntroScreen } from './screens/intro';
import { problemScreen, problemMessage } from './screens/problem';
import { DesktopScreen } from './screens/desktop';
import type { SessionView } from './session';

/** What is on screen. */
type Screen =
  | { name: 'opening' }
  /** The desktop is behind the introduction, and may connect already. */
  | { name: 'intro'; intro: IntroScreen; desktop: DesktopScreen }
  | { name: 'desktop'; desktop: DesktopScreen }
  | { name: 'ended'; ended: EndedScreen }
  | { name: 'problem' };

export class App {
  readonly #root: HTMLElement;
  readonly #api: ViewerApi;
  readonly #feed: SessionFeed;
  #screen: Screen = { name: 'opening' };
  #session: SessionView | undefined;
  /** The server's clock minus ours, in milliseconds. */
  #clockOffset = 0;

  constructor(root: HTMLElement, sessionId: string) {
    this.#root = root;
    this.#api = new ViewerApi(sessionId);
    this.#feed = new SessionFeed(this.#api, {
      onSession: (session) => this.#update(session),
      onOnline: (online) => this.#desktop()?.showOnline(online),
      onRefused: (problem) => this.#showProblem(problem),
    });
  }

  async start(): Promise<void> {
    this.#root.replaceChildren(element('main', { class: 'opening', role: 'status' }, mark(), 'Opening your sign-in…'));
    const secret = location.hash.slice(1);
    if (secret !== '') {
      try {
        await this.#api.exchange(secret);
      } catch (error) {
        // A link opened again in its own browser: the cookie from the first time still counts.
        if (!(error instanceof Problem && error.status === 410 && await this.#mayEnter())) {
          this.#showProblem(error instanceof Problem ? error : undefined);
          return;
        }
      }
      // The secret must not stay in the history, nor be copied on with the address.
      history.replaceState(null, '', location.pathname);
    }
    setInterval(() => this.#showTime(), 500);
    await this.#feed.start();
  }

  async #mayEnter(): Promise<boolean> {
    try {
      await this.#api.session();
      return true;
    } catch {
      return false;
    }
  }

  #desktop(): DesktopScreen | undefined {
    return this.#screen.name === 'intro' || this.#screen.name === 'desktop' ? this.#screen.desktop : undefined;
  }

  #update(session: SessionView): void {
    const changed = session.state !== this.#session?.state;
    this.#session = session;
    this.#clockOffset = session.serverNow - Date.now();
    document.title = `${session.provider.name} · Anteroom`;
    if (session.state === 'ended') this.#showEnded(session);
    else this.#showLive(session, changed);
    if (changed) window.dispatchEvent(new CustomEvent('anteroom:state', { detail: { state: session.state } }));
    this.#showTime();
  }

  #showLive(session: SessionView, changed: boolean): void {
    if (this.#screen.name === 'opening') this.#enter(session);
    if (this.#screen.name === 'intro') this.#screen.intro.update(session);
    const desktop = this.#desktop();
    if (!desktop) return;
    desktop.update(session);
    this.#connect();
    if (changed) desktop.retryNow();
    desktop.player.inputEnabled = this.#screen.name === 'desktop' && takesInput(session);
  }

  /** The picture, where it is wanted: before the agent is connected nobody can answer an offer. */
  #connect(): void {
    const desktop = this.#desktop();
    const state = this.#session?.state;
    if (desktop) desktop.player.live = desktop.wantsDesktop && state !== 'requested' && state !== 'booting';
  }

  #enter(session: SessionView): void {
    const desktop = new DesktopScreen(session, {
      onCancel: () => void this.#cancel(),
      onCode: (code) => this.#api.enterCode(code),
      onOpenSignInPage: () => this.#api.openSignInPage(),
      onDesktopWanted: () => this.#connect(),
      terminalUrl: this.#api.terminalUrl,
    });
    desktop.player.signal = (sdp, abort) => this.#api.offer(sdp, abort);
    desktop.player.addEventListener('firstframe', ({ detail }) => {
      window.dispatchEvent(new CustomEvent('anteroom:firstframe', { detail }));
    });
    if (accepted.has(session.sessionId)) {
      this.#root.replaceChildren(desktop.root);
      this.#screen = { name: 'desktop', desktop };
      desktop.enter();
      return;
    }
    const intro = introScreen(session, () => this.#accept(desktop));
    desktop.root.inert = true;
    // Over the desktop, not instead of it: a hidden video decodes no frames.
    this.#root.replaceChildren(desktop.root, element('div', { class: 'cover' }, intro.root));
    this.#screen = { name: 'intro', intro, desktop };
    // Where the window is small, the text above the button is what must be seen first.
    intro.root.querySelector('button')?.focus({ preventScroll: true });
  }

  #accept(desktop: DesktopScreen): void {
    const session = this.#session;
    if (!session || this.#screen.name !== 'intro') return;
    accepted.add(session.sessionId);
    this.#root.querySelector('.cover')?.remove();
    desktop.root.inert = false;
    this.#screen = { name: 'desktop', desktop };
    desktop.player.inputEnabled = takesInput(session);
    desktop.enter();
  }

  #showEnded(session: SessionView): void {
    if (this.#screen.name === 'ended') {
      this.#screen.ended.update(session);
    } else {
      this.#leaveDesktop();
      const ended = endedScreen(session);
      this.#screen = { name: 'ended', ended };
      this.#showCard(ended.root);
    }
    // Nothing changes any more.
    if (session.teardown === 'torn_down') this.#feed.stop();
  }

  #showProblem(problem: Problem | undefined): void {
    this.#leaveDesktop();
    this.#screen = { name: 'problem' };
    this.#showCard(problemScreen(problemMessage(problem)));
  }

  #leaveDesktop(): void {
    this.#desktop()?.leave();
    if (document.fullscreenElement) void document.exitFullscreen();
  }

  #showCard(card: HTMLElement): void {
    this.#root.replaceChildren(element('div', { class: 'cover' }, card));
    card.querySelector<HTMLElement>('[tabindex], button')?.focus({ preventScroll: true });
  }

  async #cancel(): Promise<void> {
    try {
      await this.#api.cancel();
    } catch (error) {
      // Ended in the meantime, or unreachable: the feed shows which.
      console.warn('could not cancel the sign-in:', error);
    }
  }

  #showTime(): void {
    if (!this.#session) return;
    const now = Date.now() + this.#clockOffset;
    const { awaiting, idleDeadline } = this.#session;
    const deadline = Math.min(this.#session.deadline, awaiting?.deadline ?? Infinity);
    this.#desktop()?.showTimeLeft(deadline - now, idleDeadline == null ? undefined : idleDeadline - now);
  }
}

/** Once the credential is found there is nothing left to type. */
function takesInput(session: SessionView): boolean {
  return session.state !== 'capturing' && session.state !== 'sealed' && session.state !== 'ended';
}

/** Whether the introduction was read; survives a reload of this tab. */
const accepted = {
  has: (sessionId: string): boolean => sessionStorage.getItem('anteroom:accepted') === sessionId,
  add: (sessionId: string): void => sessionStorage.setItem('anteroom:accepted', sessionId),
};
