// The room: a slim bar, and below it the picture, which nothing of ours covers while it is used.

import { element, icon, mark, setText } from '../dom';
import type { AnteroomPlayer, ConnectionState, PlayerStats } from '../player/anteroom-player';
import type { SessionView } from '../session';
import {
  latestWords, STEPS, stateWords, stepIndex, timeLeft, timeWarning, unreachableWords, WARN_BELOW_MS,
} from '../words';
import { cancelDialog, pasteDialog } from './dialogs';

export interface RoomActions {
  onCancel: () => void;
}

export class RoomScreen {
  readonly root: HTMLElement;
  readonly player = document.createElement('anteroom-player') as AnteroomPlayer;
  readonly #state = element('p', { class: 'state', role: 'status' });
  readonly #host = element('p', { class: 'host', hidden: true });
  readonly #left = element('p', { class: 'left', role: 'timer' });
  readonly #notice = element('p', { class: 'time-notice', role: 'alert', hidden: true });
  readonly #unreachable = element('p', { class: 'time-notice', role: 'alert', hidden: true });
  readonly #connection = element('p', { class: 'connection' });
  readonly #tools: HTMLElement;
  readonly #menu: HTMLButtonElement;
  readonly #waiting: HTMLElement;
  readonly #steps = STEPS.map((name) => element('li', {}, element('span', { class: 'dot' }), name));
  readonly #latest = element('p', { class: 'latest' });
  readonly #paste = pasteDialog((text) => this.player.paste(text), () => this.player.focus());
  readonly #operator: string;
  #online = true;

  constructor(session: SessionView, actions: RoomActions) {
    this.#operator = session.operator.name;
    const cancel = cancelDialog(session, actions.onCancel, () => this.player.focus());
    this.#tools = element('div', { class: 'tools', id: 'tools' },
      tool('paste', 'Paste text…', () => this.#paste.open()),
      tool('screen', 'Full screen', () => void this.#toggleFullScreen()),
      tool('cross', 'Cancel sign-in', () => cancel.open(), 'cancel'),
    );
    this.#menu = element('button', {
      type: 'button', class: 'tool menu', 'aria-expanded': 'false', 'aria-controls': 'tools',
      onclick: () => this.#toggleMenu(),
    }, icon('menu'), element('span', {}, 'Menu'));
    this.#waiting = element('div', { class: 'waiting' },
      element('h2', {}, 'Your room is being made'),
      element('ol', { class: 'steps' }, ...this.#steps),
      this.#latest,
      ...(session.emulated ? [element('p', { class: 'hint' }, 'This room is an emulated computer, which is slow: expect about a minute.')] : []),
    );
    this.root = element('div', { class: 'room' },
      element('header', { class: 'bar' },
        element('div', { class: 'title' }, mark(), element('h1', {}, session.provider.name)),
        this.#state, this.#host, element('div', { class: 'spacer' }),
        this.#left, this.#connection, this.#menu, this.#tools,
      ),
      ...(session.isolation === 'none' ? [element('p', { class: 'stripe' },
        icon('warning'), 'No isolation: this desktop runs directly on the operator’s computer. Do not use a real account.')] : []),
      this.#notice, this.#unreachable,
      element('main', { class: 'stage' }, this.player, this.#waiting),
      this.#paste.dialog, cancel.dialog,
    );
    this.player.addEventListener('firstframe', () => {
      this.#waiting.remove();
    });
    this.player.addEventListener('connectionchange', () => this.#showConnection());
    this.player.addEventListener('statschange', () => this.#showConnection());
    this.player.addEventListener('leavekeyboard', () => this.#focusMenu());
    this.#showConnection();
    this.update(session);
  }

  update(session: SessionView): void {
    setText(this.#state, stateWords(session.state));
    this.#state.dataset['state'] = session.state;
    const current = stepIndex(session.state);
    this.#steps.forEach((item, index) => {
      item.className = index < current ? 'done' : index === current ? 'current' : '';
      if (index === current) item.setAttribute('aria-current', 'step');
      else item.removeAttribute('aria-current');
    });
    setText(this.#latest, latestWords(session));
    this.#host.hidden = session.signInUrlHost === undefined;
    if (session.signInUrlHost !== undefined) {
      this.#host.replaceChildren(
        icon('lock'),
        element('span', { class: 'visually-hidden' }, 'The sign-in page belongs to '),
        element('span', {}, session.signInUrlHost),
      );
      this.#host.title = `The sign-in page belongs to ${session.signInUrlHost}. Compare it with the address in the picture.`;
    }
  }

  /** Milliseconds until the session's deadline, and until it ends because nobody does anything. */
  showTimeLeft(milliseconds: number, idle?: number): void {
    setText(this.#left, `${timeLeft(milliseconds)} left`);
    this.#left.classList.toggle('short', milliseconds < WARN_BELOW_MS);
    const warning = timeWarning(milliseconds, idle);
    this.#notice.hidden = warning === undefined;
    // The same words are not announced again.
    setText(this.#notice, warning ?? '');
  }

  /** Whether the server answers; without it the bar says so. */
  showOnline(online: boolean): void {
    this.#online = online;
    this.#showConnection();
  }

  #showConnection(): void {
    const { text, level } = connectionWords(this.player.connectionState, this.player.stats, this.#online);
    const unreachable = this.#online && this.player.connectionState === 'unreachable';
    this.#unreachable.hidden = !unreachable;
    setText(this.#unreachable, unreachable ? unreachableWords(this.#operator) : '');
    setText(this.#connection, text);
    this.#connection.dataset['level'] = level;
  }

  #toggleMenu(): void {
    const open = this.#tools.classList.toggle('open');
    this.#menu.setAttribute('aria-expanded', String(open));
  }

  #focusMenu(): void {
    if (this.#menu.offsetParent === null) this.#tools.querySelector('button')?.focus();
    else this.#menu.focus();
  }

  async #toggleFullScreen(): Promise<void> {
    try {
      if (document.fullscreenElement) await document.exitFullscreen();
      else await this.root.requestFullscreen();
    } catch {
      // Where the browser forbids it, the window's own full screen still works.
    }
    this.player.focus();
  }
}

function tool(name: 'paste' | 'screen' | 'cross', label: string, act: () => void, kind = ''): HTMLButtonElement {
  return element('button', { type: 'button', class: `tool ${kind}`, title: label, onclick: act },
    icon(name), element('span', {}, label));
}

function connectionWords(
  state: ConnectionState, stats: PlayerStats | undefined, online: boolean,
): { text: string; level: 'good' | 'busy' | 'bad' } {
  if (!online) return { text: 'The server does not answer', level: 'bad' };
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
