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
    title: 'This link is not complete',
    text: 'The link to a sign-in contains a session ID. This one does not.',
    todo: 'Open the complete link that you were given.',
    retry: false,
  }));
}
