import { App } from './app';
import { defineAnteroomPlayer } from './player/anteroom-player';
import { problemScreen } from './screens/problem';

defineAnteroomPlayer();

const root = document.querySelector<HTMLElement>('#app');
const sessionId = /^\/v\/([A-Za-z0-9_-]+)\/?$/.exec(location.pathname)?.[1];

if (root && sessionId) {
  void new App(root, sessionId).start();
} else {
  root?.replaceChildren(problemScreen({
    title: 'This address is not complete',
    text: 'A room’s address has the session’s number in it, and this one has none.',
    todo: 'Open the whole link that you were given.',
    retry: false,
  }));
}
