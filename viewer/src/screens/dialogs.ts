// The desktop screen's two dialogs. Modal: while one is open, no key reaches the guest.

import { element, setText } from '../dom';
import { cleanPaste, MAX_PASTE_BYTES, utf8Length } from '../player/messages';
import type { SessionView } from '../session';

export interface Dialog {
  dialog: HTMLDialogElement;
  open: () => void;
}

/** `paste` gives false when the guest cannot be reached; `onClose` runs however it closes. */
export function pasteDialog(paste: (text: string) => boolean, onClose: () => void): Dialog {
  const area = element('textarea', { id: 'paste-text', rows: 6, spellcheck: false, autocomplete: 'off' });
  const count = element('p', { class: 'count', role: 'status' });
  const submit = element('button', { type: 'submit', class: 'primary' }, 'Paste');
  const check = () => {
    const bytes = utf8Length(cleanPaste(area.value));
    const over = bytes > MAX_PASTE_BYTES;
    setText(count, over
      ? `${bytes} bytes: ${bytes - MAX_PASTE_BYTES} too many.`
      : `${bytes} of ${MAX_PASTE_BYTES} bytes`);
    count.classList.toggle('over', over);
    submit.disabled = bytes === 0 || over;
  };
  const form = element('form', { method: 'dialog' },
    element('h2', { id: 'paste-title' }, 'Paste text'),
    element('label', { for: 'paste-text' }, 'It is typed into the field that is selected on the desktop.'),
    area, count,
    element('div', { class: 'actions' },
      submit,
      element('button', { type: 'button', class: 'quiet', onclick: () => dialog.close() }, 'Cancel')),
  );
  const dialog = element('dialog', { 'aria-labelledby': 'paste-title' }, form);
  area.addEventListener('input', check);
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (paste(area.value)) dialog.close();
    else setText(count, 'The desktop is not connected. Try again when it is.');
  });
  dialog.addEventListener('close', () => {
    // It may have been a password.
    area.value = '';
    onClose();
  });
  return { dialog, open: () => { check(); dialog.showModal(); area.focus(); } };
}

export function cancelDialog(session: SessionView, onCancel: () => void, onClose: () => void): Dialog {
  const stay = element('button', { type: 'submit', class: 'quiet' }, 'Continue signing in');
  const dialog = element('dialog', { 'aria-labelledby': 'cancel-title', onclose: onClose },
    element('form', { method: 'dialog' },
      element('h2', { id: 'cancel-title' }, 'Cancel the sign-in?'),
      element('p', {}, session.isolation === 'vm'
        ? 'The sign-in desktop is destroyed immediately and no credential is saved.'
        : 'The desktop is closed immediately and no credential is saved.'),
      element('div', { class: 'actions' },
        element('button', { type: 'submit', class: 'danger', onclick: onCancel }, 'Cancel the sign-in'),
        stay),
    ));
  return { dialog, open: () => { dialog.showModal(); stay.focus(); } };
}
