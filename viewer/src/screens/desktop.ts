// The desktop screen: a slim bar, and below it the picture, which nothing covers while it is used, the
// card for those who need no picture, or the tool's terminal.

import { element, icon, mark, setText, type IconName } from '../dom';
import type { AnteroomPlayer, ConnectionState, PlayerStats } from '../player/anteroom-player';
import type { SessionView } from '../session';
import { SignInCard } from '../sign-in/card';
import { codeNews, hostNews } from '../sign-in/news';
import { TerminalPanel } from '../terminal/panel';
import {
  latestEvent, stateLabel, STEPS, stepIndex, timeLeft, timeWarning, unreachableMessage, visitNotice, WARN_BELOW_MS,
} from '../ui-strings';
import { cancelDialog, pasteDialog } from './dialogs';
import { desktopLayout, type DesktopLayout } from './desktop-layout';

export interface DesktopActions {
  onCancel: () => void;
  /** Rejects with a Problem when the code is refused. */
  onCode: (code: string) => Promise<void>;
  /** Has the desktop's browser show the sign-in page. */
  onOpenSignInPage: () => Promise<void>;
  /** Whether the desktop is wanted has changed. */
  onDesktopWanted: () => void;
  /** The address of the tool's terminal. */
  terminalUrl: string;
}

export class DesktopScreen {
  readonly root: HTMLElement;
  readonly player = document.createElement('anteroom-player') as AnteroomPlayer;
  readonly #state = element('p', { class: 'state', role: 'status' });
  readonly #host = element('p', { class: 'host', hidden: true });
  readonly #left = element('p', { class: 'left', role: 'timer' });
  readonly #notice = element('p', { class: 'time-notice', role: 'alert', hidden: true });
  readonly #unreachable = element('p', { class: 'time-notice', role: 'alert', hidden: true });
  readonly #visits = element('span');
  readonly #visited = element('p', { class: 'time-notice dismissible', role: 'alert', hidden: true }, this.#visits,
    element('button', { type: 'button', class: 'quiet', onclick: () => this.#dismissVisits() }, 'Got it'));
  readonly #news = element('p', { class: 'time-notice', role: 'alert', hidden: true });
  readonly #connection = element('p', { class: 'connection' });
  readonly #actions: DesktopActions;
  readonly #tools: HTMLElement;
  readonly #menu: HTMLButtonElement;
  readonly #pasteTool = tool('paste', 'Paste text…', () => this.#paste.open());
  readonly #terminalTool = tool('tool', 'Terminal', () => this.#toggleTerminal());
  readonly #stage: HTMLElement;
  readonly #card: SignInCard;
  readonly #work: HTMLElement;
  readonly #view: HTMLElement;
  readonly #terminal: TerminalPanel;
  readonly #waiting: HTMLElement;
  readonly #waitingTitle = element('h2');
  readonly #steps: HTMLElement[];
  readonly #latest = element('p', { class: 'latest' });
  readonly #paste = pasteDialog((text) => this.player.paste(text), () => this.player.focus());
  #session: SessionView;
  #layout: DesktopLayout | undefined;
  #online = true;
  /** The introduction was read. */
  #entered = false;
  #desktopAsked = false;
  /** How many visits of others the end user has seen. */
  #visitsRead = 0;
  /** The terminal is open because the tool asks something, not because the end user opened it. */
  #terminalDemanded = false;

  constructor(session: SessionView, actions: DesktopActions) {
    this.#session = session;
    this.#actions = actions;
    const cancel = cancelDialog(session, actions.onCancel, () => this.focus());
    this.#terminalTool.setAttribute('aria-controls', 'terminal');
    this.#tools = element('div', { class: 'tools', id: 'tools' },
      this.#pasteTool,
      this.#terminalTool,
      tool('screen', 'Full screen', () => void this.#toggleFullScreen()),
      tool('cross', 'Cancel sign-in', () => cancel.open(), 'cancel'),
    );
    this.#menu = element('button', {
      type: 'button', class: 'tool menu', 'aria-expanded': 'false', 'aria-controls': 'tools',
      onclick: () => this.#showMenu(!this.#tools.classList.contains('open')),
    }, icon('menu'), element('span', {}, 'Menu'));
    this.#steps = STEPS.map((name) => element('li', {}, element('span', { class: 'dot' }), name));
    this.#waiting = element('div', { class: 'waiting' },
      this.#waitingTitle,
      element('ol', { class: 'steps' }, ...this.#steps),
      this.#latest,
      ...(session.emulated ? [element('p', { class: 'hint' }, 'This computer is emulated and slow: it takes about a minute.')] : []),
    );
    this.#card = new SignInCard(session, { onCode: actions.onCode, onDesktop: (shown) => this.#askDesktop(shown) });
    this.#work = element('div', { class: 'work' }, this.#card.root);
    this.#view = element('div', { class: 'view' }, this.player, this.#waiting);
    this.#terminal = new TerminalPanel(actions.terminalUrl, {
      onClose: () => this.#toggleTerminal(),
      onLeave: () => this.#focusMenu(),
    });
    this.#stage = element('main', { class: 'stage' },
      element('div', { class: 'floor' }, this.#work, this.#view), this.#terminal.root);
    this.root = element('div', { class: 'desktop' },
      element('header', { class: 'bar' },
        element('div', { class: 'title' }, mark(), element('h1', {}, session.provider.name)),
        this.#state, this.#host, element('div', { class: 'spacer' }),
        this.#left, this.#connection, this.#menu, this.#tools,
      ),
      ...(session.isolation === 'none' ? [element('p', { class: 'stripe' },
        icon('warning'), `No isolation: ${session.method === 'browser' ? 'this desktop' : 'the tool'} runs directly on the computer that serves this page. Do not use a real account.`)] : []),
      this.#visited, this.#notice, this.#news, this.#unreachable,
      this.#stage, this.#paste.dialog, cancel.dialog,
    );
    this.player.addEventListener('firstframe', () => this.#arrange());
    this.player.addEventListener('connectionchange', () => this.#showConnection());
    this.player.addEventListener('statschange', () => this.#showConnection());
    this.player.addEventListener('leavekeyboard', () => this.#focusMenu());
    this.update(session);
  }

  /** Whether the end user needs the desktop, or asked for it. */
  get wantsDesktop(): boolean {
    return this.#layout?.desktop ?? false;
  }

  /** The introduction is gone. */
  enter(): void {
    this.#entered = true;
    this.#arrange();
    this.focus();
  }

  /** Nothing of it stays connected. */
  leave(): void {
    this.player.inputEnabled = false;
    this.player.live = false;
    this.#terminal.close();
    this.#card.clear();
  }

  /** Gives the keyboard to what is used now. */
  focus(): void {
    if (this.#terminal.isOpen) this.#terminal.focus();
    else if (this.#layout?.desktop) this.player.focus();
    else if (this.#layout?.card) this.#card.focus();
  }

  retryNow(): void {
    this.player.retryNow();
    this.#terminal.retryNow();
  }

  update(session: SessionView): void {
    this.#session = session;
    setText(this.#state, stateLabel(session.state));
    this.#state.dataset['state'] = session.state;
    const current = stepIndex(session.state);
    this.#steps.forEach((item, index) => {
      item.className = index < current ? 'done' : index === current ? 'current' : '';
      if (index === current) item.setAttribute('aria-current', 'step');
      else item.removeAttribute('aria-current');
    });
    setText(this.#latest, latestEvent(session));
    this.#showVisits();
    this.#host.hidden = !session.signInUrlHost;
    if (session.signInUrlHost) {
      this.#host.replaceChildren(
        icon('lock'),
        element('span', { class: 'visually-hidden' }, 'The sign-in page belongs to '),
        element('span', {}, session.signInUrlHost),
      );
      const where = session.method === 'browser' ? 'on the desktop' : 'of the page that opens';
      this.#host.title = `The sign-in page belongs to ${session.signInUrlHost}. Compare it with the address ${where}.`;
    }
    this.#arrange();
  }

  /** Who else opened the session, until the end user dismisses it. */
  #showVisits(): void {
    const visits = this.#session.visitsOfOthers.length;
    this.#visited.hidden = visits <= this.#visitsRead;
    if (!this.#visited.hidden) setText(this.#visits, visitNotice(this.#session, Date.now()) ?? '');
  }

  #dismissVisits(): void {
    this.#visitsRead = this.#session.visitsOfOthers.length;
    this.#showVisits();
    this.focus();
  }

  /** Shows what belongs on screen, and hides the rest. */
  #arrange(): void {
    const before = this.#layout;
    const now = desktopLayout(this.#session, this.#desktopAsked, this.player.hasPicture);
    this.#layout = now;
    this.#work.hidden = !now.card;
    this.#view.hidden = !now.desktop && now.waiting === undefined;
    this.player.hidden = !now.desktop;
    this.#pasteTool.hidden = !now.desktop;
    this.#waiting.hidden = now.waiting === undefined;
    setText(this.#waitingTitle, now.waiting ?? '');
    this.#stage.classList.toggle('with-card', now.card);
    this.#card.showDesktop(now.desktop);
    if (now.card && this.#session.awaiting) this.#card.update(this.#session.awaiting, this.#session);
    else this.#card.clear();
    // The card shows it at its own place.
    const { timeline } = this.#session;
    const news = now.card ? undefined : codeNews(timeline).message ?? hostNews(timeline);
    this.#news.hidden = news === undefined;
    setText(this.#news, news ?? '');
    this.#demandTerminal(now);
    this.#showConnection();
    // The card has just appeared: it takes the keyboard, unless something else has it.
    if (now.card && !before?.card && this.#entered && document.activeElement === document.body) this.focus();
  }

  /** The terminal opens by itself for a question that only it can answer, and closes afterwards. */
  #demandTerminal({ demand, desktop }: DesktopLayout): void {
    // Without a picture there would be nothing left on screen.
    const closable = demand === undefined || desktop;
    this.#terminal.demand(demand, closable);
    this.#terminalTool.disabled = !closable;
    if (demand !== undefined && !this.#terminalDemanded && this.#entered) {
      this.#terminalDemanded = true;
      this.#terminal.open(true);
    } else if (demand === undefined && this.#terminalDemanded) {
      this.#terminalDemanded = false;
      this.#terminal.close();
    }
    this.#terminalTool.setAttribute('aria-pressed', String(this.#terminal.isOpen));
  }

  #toggleTerminal(): void {
    if (this.#terminal.isOpen) {
      this.#terminal.close();
      this.focus();
    } else {
      this.#terminal.open(this.#layout?.demand !== undefined);
      // On a phone the menu would cover half of the terminal.
      this.#showMenu(false);
      this.#terminal.focus();
    }
    this.#terminalTool.setAttribute('aria-pressed', String(this.#terminal.isOpen));
  }

  async #askDesktop(shown: boolean): Promise<void> {
    if (shown) await this.#actions.onOpenSignInPage();
    this.#desktopAsked = shown;
    this.#arrange();
    this.#actions.onDesktopWanted();
  }

  /** Milliseconds until the session's deadline, and until it ends because nobody does anything. */
  showTimeLeft(milliseconds: number, idle?: number): void {
    setText(this.#left, `${timeLeft(milliseconds)} left`);
    this.#left.classList.toggle('short', milliseconds < WARN_BELOW_MS);
    const warning = timeWarning(milliseconds, idle, this.wantsDesktop);
    this.#notice.hidden = warning === undefined;
    // The same text is not announced again.
    setText(this.#notice, warning ?? '');
  }

  /** Whether the server responds; the bar says so when it does not. */
  showOnline(online: boolean): void {
    this.#online = online;
    this.#showConnection();
  }

  #showConnection(): void {
    const { text, level } = connectionLabel(this.player.connectionState, this.player.stats, this.#online);
    // Without a picture there is no connection to show.
    this.#connection.hidden = this.#online && !this.wantsDesktop;
    const unreachable = this.#online && this.player.connectionState === 'unreachable';
    this.#unreachable.hidden = !unreachable;
    setText(this.#unreachable, unreachable ? unreachableMessage(this.#session.operator.name) : '');
    setText(this.#connection, text);
    this.#connection.dataset['level'] = level;
  }

  #showMenu(open: boolean): void {
    this.#tools.classList.toggle('open', open);
    this.#menu.setAttribute('aria-expanded', String(open));
  }

  #focusMenu(): void {
    if (this.#menu.offsetParent === null) this.#tools.querySelector<HTMLElement>('button:not([hidden], :disabled)')?.focus();
    else this.#menu.focus();
  }

  async #toggleFullScreen(): Promise<void> {
    try {
      if (document.fullscreenElement) await document.exitFullscreen();
      else await this.root.requestFullscreen();
    } catch {
      // Where the browser forbids it, the window's own full screen still works.
    }
    this.focus();
  }
}

function tool(name: IconName, label: string, onClick: () => void, kind = ''): HTMLButtonElement {
  return element('button', { type: 'button', class: `tool ${kind}`, title: label, onclick: onClick },
    icon(name), element('span', {}, label));
}

function connectionLabel(
  state: ConnectionState, stats: PlayerStats | undefined, online: boolean,
): { text: string; level: 'good' | 'busy' | 'bad' } {
  if (!online) return { text: 'The server does not respond', level: 'bad' };
  switch (state) {
    case 'off':
    case 'connecting':
      return { text: 'Connecting', level: 'busy' };
    case 'reconnecting':
      return { text: 'Reconnecting', level: 'bad' };
    case 'unreachable':
      return { text: 'No picture', level: 'bad' };
    case 'connected': {
      const trip = stats?.roundTripMs;
      return { text: trip === undefined ? 'Connected' : `Connected · ${Math.max(1, Math.round(trip))} ms`, level: 'good' };
    }
  }
}
