// After the end: what happened, how far the teardown is, what to do now.

import { element, icon, mark, setText } from '../dom';
import type { SessionView, TimelineEntry } from '../session';
import { endMessage, sessionEvents, teardownMessage, sentence, timeLeft, visitNotice } from '../ui-strings';

export interface EndedScreen {
  root: HTMLElement;
  update: (session: SessionView) => void;
}

export function endedScreen(session: SessionView): EndedScreen {
  const message = endMessage(session);
  const teardown = element('dd', { role: 'status' });
  const visits = element('p', { class: 'notice' });
  const history = element('ol', { class: 'timeline' });
  const root = element('main', { class: 'card ended', 'aria-labelledby': 'ended-title' },
    element('div', { class: 'brand' }, mark(), 'Anteroom'),
    element('div', { class: `seal ${message.success ? 'good' : 'bad'}` }, icon(message.success ? 'check' : 'cross')),
    element('h1', { id: 'ended-title', tabIndex: -1 }, message.title),
    element('p', { class: 'lead' }, message.text), visits,
    element('dl', { class: 'facts' },
      element('dt', {}, icon('flame'), 'Sign-in desktop'), teardown,
      element('dt', {}, icon('user'), 'What to do next'), element('dd', {}, message.todo)),
    element('details', {},
      element('summary', {}, 'What happened, step by step'),
      history),
    element('p', { class: 'number' }, 'Session ID ', element('code', {}, session.sessionId)),
  );
  const update = (now: SessionView) => {
    setText(teardown, teardownMessage(now));
    teardown.classList.toggle('left-behind', (now.leftovers ?? []).length > 0);
    const others = visitNotice(now, Date.now());
    visits.hidden = others === undefined;
    setText(visits, others ?? '');
    history.replaceChildren(...sessionEvents(now).map((entry) => element('li', {},
      element('time', {}, timeLeft(entry.at - now.createdAt)), step(entry))));
  };
  update(session);
  return { root, update };
}

/** What happened; for a death also the evidence, for whoever is asked about it. */
function step({ message, explanation }: TimelineEntry): HTMLElement {
  const evidence = (explanation?.evidence ?? []).map((line) => element('small', { class: 'evidence' }, line));
  const advice = explanation?.advice ? [element('small', {}, sentence(explanation.advice))] : [];
  return element('div', {}, sentence(message), ...evidence, ...advice);
}
