// After the end: what happened, what became of the room, what to do now.

import { element, icon, mark, setText } from '../dom';
import type { SessionView, TimelineEntry } from '../session';
import { endWords, ofTheRoom, roomWords, sentence, timeLeft, visitWords } from '../words';

export interface EndedScreen {
  root: HTMLElement;
  update: (session: SessionView) => void;
}

export function endedScreen(session: SessionView): EndedScreen {
  const words = endWords(session);
  const room = element('dd', { role: 'status' });
  const visits = element('p', { class: 'notice' });
  const history = element('ol', { class: 'timeline' });
  const root = element('main', { class: 'card ended', 'aria-labelledby': 'ended-title' },
    element('div', { class: 'brand' }, mark(), 'Anteroom'),
    element('div', { class: `seal ${words.success ? 'good' : 'bad'}` }, icon(words.success ? 'check' : 'cross')),
    element('h1', { id: 'ended-title', tabIndex: -1 }, words.title),
    element('p', { class: 'lead' }, words.text), visits,
    element('dl', { class: 'facts' },
      element('dt', {}, icon('flame'), 'The room'), room,
      element('dt', {}, icon('person'), 'What to do now'), element('dd', {}, words.todo)),
    element('details', {},
      element('summary', {}, 'What happened, step by step'),
      history),
    element('p', { class: 'number' }, 'Session number ', element('code', {}, session.sessionId)),
  );
  const update = (now: SessionView) => {
    setText(room, roomWords(now));
    room.classList.toggle('left-behind', (now.leftovers ?? []).length > 0);
    const others = visitWords(now, Date.now());
    visits.hidden = others === undefined;
    setText(visits, others ?? '');
    history.replaceChildren(...ofTheRoom(now).map((entry) => element('li', {},
      element('time', {}, timeLeft(entry.at - now.createdAt)), step(entry))));
  };
  update(session);
  return { root, update };
}

/** What happened; of a death also what the explanation rests on, for whoever is asked about it. */
function step({ message, explanation }: TimelineEntry): HTMLElement {
  const evidence = (explanation?.evidence ?? []).map((line) => element('small', { class: 'evidence' }, line));
  const advice = explanation?.advice ? [element('small', {}, sentence(explanation.advice))] : [];
  return element('div', {}, sentence(message), ...evidence, ...advice);
}
