// The end user's input on the picture, as messages for the guest.

import { KeyEncoder } from './key-encoder';
import type { KeyPress } from './keyboard';
import { toGuestPixel, type GuestPoint, type Size } from './letterbox';
import type { InputMessage, PointerButton } from './messages';
import { ScrollAccumulator } from './scroll';

/** By `button` of a PointerEvent; the masks are those of its `buttons`. */
const BUTTONS: readonly PointerButton[] = ['left', 'middle', 'right'];
const BUTTON_MASKS: readonly number[] = [1, 4, 2];

export interface InputCaptureOptions {
  /** The element that shows the picture. */
  video: HTMLVideoElement;
  /** Takes the keyboard's events and what input methods compose. */
  keyboard: HTMLTextAreaElement;
  send: (message: InputMessage) => void;
  /** The end user asks for the keyboard back (Ctrl+Alt+M). */
  onLeave: () => void;
}

/** Listens from construction to `close`. */
export class InputCapture {
  readonly #options: InputCaptureOptions;
  readonly #keys = new KeyEncoder();
  readonly #scroll = new ScrollAccumulator();
  readonly #buttons = new Set<PointerButton>();
  readonly #listening = new AbortController();
  /** The newest pointer position that the guest does not know yet. */
  #pendingMove: GuestPoint | undefined;
  #frame: number | undefined;

  constructor(options: InputCaptureOptions) {
    this.#options = options;
    this.#listenPointer(options.video);
    this.#listenKeyboard(options.keyboard);
    const released = () => this.releaseAll();
    this.#on(window, 'blur', released);
    this.#on(window, 'pagehide', released);
    this.#on(document, 'visibilitychange', () => {
      if (document.visibilityState === 'hidden') this.releaseAll();
    });
  }

  close(): void {
    this.releaseAll();
    this.#listening.abort();
  }

  /** Lets go of every key and button, here and in the guest. */
  releaseAll(): void {
    if (this.#frame !== undefined) cancelAnimationFrame(this.#frame);
    this.#frame = undefined;
    this.#pendingMove = undefined;
    this.#buttons.clear();
    this.#keys.releaseAll();
    this.#scroll.reset();
    this.#options.send({ type: 'release_all' });
  }

  #on<E extends Event>(target: EventTarget, type: string, listener: (event: E) => void): void {
    // Wheel listeners are passive by default in places; these must be able to prevent.
    target.addEventListener(type, listener as EventListener, { signal: this.#listening.signal, passive: false });
  }

  #listenPointer(video: HTMLVideoElement): void {
    this.#on<PointerEvent>(video, 'pointermove', (event) => this.#move(event));
    this.#on<PointerEvent>(video, 'pointerdown', (event) => this.#buttonDown(event));
    this.#on<PointerEvent>(video, 'pointerup', (event) => this.#buttonUp(event));
    this.#on<PointerEvent>(video, 'pointercancel', () => this.releaseAll());
    this.#on<WheelEvent>(video, 'wheel', (event) => this.#wheel(event));
    this.#on(video, 'contextmenu', (event) => event.preventDefault());
    // The middle button would start the browser's own scrolling, or open links.
    this.#on(video, 'auxclick', (event) => event.preventDefault());
  }

  #move(event: PointerEvent): void {
    // A second button, pressed or released while one is held, comes as a move.
    if (event.button >= 0) {
      const mask = BUTTON_MASKS[event.button] ?? 0;
      if ((event.buttons & mask) !== 0) this.#buttonDown(event);
      else this.#buttonUp(event);
      return;
    }
    const point = this.#guestPoint(event);
    if (!point || (!point.inside && this.#buttons.size === 0)) return;
    this.#pendingMove = point;
    this.#frame ??= requestAnimationFrame(() => {
      this.#frame = undefined;
      this.#flushMove();
    });
  }

  #flushMove(): void {
    const point = this.#pendingMove;
    this.#pendingMove = undefined;
    if (point) this.#options.send({ type: 'pointer_move', x: point.x, y: point.y });
  }

  #buttonDown(event: PointerEvent): void {
    event.preventDefault();
    this.#options.keyboard.focus({ preventScroll: true });
    const button = BUTTONS[event.button];
    const point = this.#guestPoint(event);
    if (!button || !point?.inside) return;
    this.#options.video.setPointerCapture(event.pointerId);
    this.#buttons.add(button);
    this.#sendButton(point, button, true);
  }

  #buttonUp(event: PointerEvent): void {
    const button = BUTTONS[event.button];
    const point = this.#guestPoint(event);
    if (!button || !point || !this.#buttons.delete(button)) return;
    event.preventDefault();
    this.#sendButton(point, button, false);
  }

  #sendButton(point: GuestPoint, button: PointerButton, pressed: boolean): void {
    this.#pendingMove = point;
    this.#flushMove();
    this.#options.send({ type: 'pointer_button', button, pressed });
  }

  #wheel(event: WheelEvent): void {
    // With control held it is the browser's zoom, and pinching on a trackpad looks the same.
    if (event.ctrlKey) return;
    event.preventDefault();
    if (!this.#guestPoint(event)?.inside) return;
    const notches = this.#scroll.add(event);
    if (!notches) return;
    this.#flushMove();
    this.#options.send({ type: 'scroll', ...notches });
  }

  #guestPoint(event: MouseEvent): GuestPoint | undefined {
    const { video } = this.#options;
    const picture: Size = { width: video.videoWidth, height: video.videoHeight };
    const element = video.getBoundingClientRect();
    return toGuestPixel({ x: event.clientX, y: event.clientY }, element, picture);
  }

  #listenKeyboard(keyboard: HTMLTextAreaElement): void {
    this.#on<KeyboardEvent>(keyboard, 'keydown', (event) => {
      if (event.ctrlKey && event.altKey && event.code === 'KeyM') {
        event.preventDefault();
        this.releaseAll();
        this.#options.onLeave();
        return;
      }
      this.#apply(event, this.#keys.press(keyPress(event)));
    });
    this.#on<KeyboardEvent>(keyboard, 'keyup', (event) => this.#apply(event, this.#keys.release(event.code)));
    this.#on<InputEvent>(keyboard, 'input', (event) => {
      if (!event.isComposing) this.#takeTyped();
    });
    this.#on(keyboard, 'compositionend', () => this.#takeTyped());
    this.#on(keyboard, 'blur', () => this.releaseAll());
    // What is pasted goes through the menu, where it is shown and limited.
    this.#on(keyboard, 'paste', (event) => event.preventDefault());
    this.#on(keyboard, 'drop', (event) => event.preventDefault());
  }

  #apply(event: KeyboardEvent, result: { messages: InputMessage[]; handled: boolean }): void {
    if (result.handled) event.preventDefault();
    for (const message of result.messages) this.#options.send(message);
  }

  #takeTyped(): void {
    const { keyboard, send } = this.#options;
    const text = keyboard.value;
    keyboard.value = '';
    for (const message of this.#keys.text(text)) send(message);
  }
}

function keyPress(event: KeyboardEvent): KeyPress {
  return {
    code: event.code,
    key: event.key,
    shift: event.shiftKey,
    control: event.ctrlKey,
    alt: event.altKey,
    meta: event.metaKey,
    altGraph: event.getModifierState('AltGraph'),
    // 229 is what browsers give while an input method decides.
    composing: event.isComposing || event.keyCode === 229,
  };
}
