import { describe, expect, it } from 'vitest';

import reference from '../../docs/reference/problems.md?raw';
import { Problem } from '../src/api';
import { problemMessage } from '../src/screens/problem';
import type { SessionView, StateName } from '../src/session';
import { clockTime, credentialOwner, endMessage, latestEvent, sessionEvents, teardownMessage, sentence, stateLabel, STEPS, stepIndex, termsMessage, timeLeft, timeWarning, visitNotice } from '../src/ui-strings';

const session: SessionView = {
  sessionId: 's-1', provider: { id: 'demo', name: 'Demo CLI' }, operator: { id: '', name: 'Example Ltd' }, method: 'browser',
  state: 'ended', timeline: [], visitsOfOthers: [], createdAt: 0, deadline: 600_000, serverNow: 0, emulated: false, isolation: 'vm', instructions: '',
  credential: { status: 'none', openableBy: 'operator', recipient: 'age1operator', files: [] }, teardown: 'torn_down', leftovers: [],
};

const STATES: StateName[] = ['requested', 'booting', 'preparing', 'ready', 'awaiting_user', 'capturing', 'sealed', 'ended'];

describe('states', () => {
  it('have labels that an end user understands', () => {
    expect(STATES.map(stateLabel)).toEqual([
      'Starting the sign-in desktop…', 'Starting the sign-in desktop…', 'Starting the sign-in…', 'Starting the sign-in…', 'Your turn: sign in',
      'Saving your sign-in…', 'Saving your sign-in…', 'Done',
    ]);
  });

  it('mention no browser to those who use their own', () => {
    const labels = [...STATES.map(stateLabel), ...STEPS];
    expect(labels.filter((text) => text.includes('browser'))).toEqual([]);
  });

  it('only go forward', () => {
    const steps = STATES.map(stepIndex);
    expect(steps).toEqual([...steps].sort((a, b) => a - b));
    expect(stepIndex('ended')).toBe(STEPS.length);
  });
});

describe('the latest news', () => {
  it('are about the session, not about who is watching', () => {
    const timeline = [{ at: 1, kind: 'sandbox_started', message: 'qemu started' }, { at: 2, kind: 'viewer_joined', message: 'a viewer joined' }];
    expect(latestEvent({ ...session, timeline })).toBe('Qemu started.');
    expect(latestEvent(session)).toBe('');
  });
});

describe('visits of others', () => {
  const at = 1_000;
  it('are shown with what they saw, and whether they still may', () => {
    expect(visitNotice(session, 0)).toBeUndefined();
    const link = { by: 'link', generation: 1 } as const;
    const visitsOfOthers = [
      { at, opened: 'link', viewer: link }, { at, opened: 'terminal', viewer: link }, { at, opened: 'terminal', viewer: link },
      { at, opened: 'picture', viewer: link },
    ] as const;
    const notice = visitNotice({ ...session, visitsOfOthers: [...visitsOfOthers] }, 0);
    expect(notice).toMatch(/^An earlier link to this sign-in was opened at .*\. It was used to view the terminal and the desktop\. That link is closed now\./);
    const key = { at, opened: 'vnc', viewer: { by: 'api_key', key: 'deploy' } } as const;
    expect(visitNotice({ ...session, visitsOfOthers: [key] }, 0)).toMatch(/^Someone opened the desktop over VNC at .* with an API key of this server\.$/);
  });

  it('are not part of the latest news', () => {
    const kinds = ['sandbox_started', 'viewer_joined', 'link_opened', 'link_created', 'links_revoked', 'terminal_opened', 'vnc_opened'];
    const timeline = kinds.map((kind) => ({ at: 1, kind, message: kind }));
    expect(latestEvent({ ...session, timeline })).toBe('Sandbox_started.');
    expect(sessionEvents({ ...session, timeline }).map(({ kind }) => kind)).toEqual(['sandbox_started']);
  });
});

describe('a link that was revoked', () => {
  it('is shown as such, with the time', () => {
    const message = problemMessage(new Problem(401, 'Unauthorized', 'revoked', 'viewer_revoked', Date.UTC(2026, 0, 1, 12, 34)));
    expect(message.title).toBe('This link was closed');
    expect(message.text).toMatch(/^It was revoked at .*34/);
    expect(message.retry).toBe(false);
  });
});

describe('an end by the end user', () => {
  it('is shown to them as theirs', () => {
    const reason = { code: 'cancelled', message: 'cancelled by the end user in the viewer', detail: { by: { kind: 'end_user' } } } as const;
    expect(endMessage({ ...session, reason }).title).toBe('You cancelled the sign-in');
    expect(endMessage({ ...session, reason: { ...reason, detail: { by: { kind: 'caller' } } } }).title).toBe('The sign-in was cancelled');
  });
});

describe('terms', () => {
  const terms = { page: 'https://example.com/terms', read: '2026-11-27', custody: 'recipient_only', overridden: false } as const;
  const of = (terms: NonNullable<SessionView['credential']['terms']>) => termsMessage({ ...session, credential: { ...session.credential, openableBy: 'caller', terms } });

  it('are shown where somebody read them', () => {
    expect(termsMessage(session)).toBeUndefined();
    expect(of(terms)).toBe('The terms of Demo CLI, as read on 2026-11-27 (https://example.com/terms), allow only you to hold your login, so the key that opens it must be yours.');
    expect(of({ ...terms, custody: 'vault' })).toContain('allow the operator');
  });

  it('that the operator overrides name the operator', () => {
    expect(of({ ...terms, overridden: true })).toContain('Example Ltd stores it nevertheless');
  });
});

describe('times', () => {
  it('count down and stop at zero', () => {
    expect([600_000, 59_001, 59_000, 1, 0, -5].map(timeLeft)).toEqual(['10:00', '1:00', '0:59', '0:01', '0:00', '0:00']);
    expect(timeLeft(3_725_000)).toBe('1:02:05');
  });

  it('are warned of before the nearer end', () => {
    expect(timeWarning(120_000, undefined, true)).toBeUndefined();
    expect(timeWarning(120_000, 61_000, true)).toBeUndefined();
    expect(timeWarning(59_000, undefined, true)).toMatch(/^This sign-in ends in less than a minute/);
    expect(timeWarning(120_000, 59_000, true)).toMatch(/^Are you still there/);
    expect(timeWarning(30_000, 59_000, true)).toMatch(/^This sign-in ends in less than a minute/);
  });

  it('are kept open by what there is', () => {
    expect(timeWarning(120_000, 59_000, true)).toContain('the desktop');
    expect(timeWarning(120_000, 59_000, false)).not.toContain('the desktop');
  });

  it('are shown on the end user’s clock even where the server’s is wrong', () => {
    const now = new Date(2026, 0, 5, 14, 2).getTime();
    const skewed = { ...session, serverNow: now - 7_200_000 };
    const shown = clockTime(skewed.serverNow + 30 * 60_000, skewed, now);
    expect(shown).toBe(new Date(2026, 0, 5, 14, 32).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' }));
  });
});

describe('the end', () => {
  const ended = (code: string, message: string) => endMessage({ ...session, reason: { code, message, detail: {} } });

  it('names who can open the credential', () => {
    expect(credentialOwner(session)).toBe('Example Ltd');
    const recipient = 'age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p';
    expect(credentialOwner({ ...session, credential: { ...session.credential, openableBy: 'caller', recipient } })).toContain('age1ql3z7hjy…aqmcac8p');
    expect(ended('completed', '').success).toBe(true);
  });

  it('gives the server’s reason, and something to do', () => {
    const message = ended('cli_exited', 'the tool exited with code 1 before it wrote a credential');
    expect(message.text).toBe('The tool exited with code 1 before it wrote a credential.');
    expect(message.success).toBe(false);
    expect(message.todo).not.toBe('');
  });

  it('leaves what a tool’s refusal means to the provider file', () => {
    const message = ended('sign_in_refused', 'This account does not allow it. Switch it on under Settings.');
    expect(message.text).toBe('This account does not allow it. Switch it on under Settings.');
    expect(message.title).toBe('The sign-in was rejected');
  });

  it('has a title of its own for every reason that the server knows', () => {
    // A test in Rust holds this list to the server.
    const ends = reference.split('\n## Ends\n')[1] ?? '';
    const codes = [...ends.matchAll(/^\| `(\w+)`/gm)].map((match) => match[1] ?? '');
    expect(codes).toContain('timed_out');
    expect(codes.filter((code) => ended(code, 'x').title === ended('unheard_of', 'x').title)).toEqual([]);
  });

  it('stays readable for a reason that it does not know', () => {
    expect(ended('unheard_of', '').todo).toContain('Example Ltd');
    expect(ended('unheard_of', '').text).toBe('The server did not give a reason.');
  });

  it('says what is left of the sign-in desktop', () => {
    expect(teardownMessage(session)).toContain('a check found nothing left of it');
    expect(teardownMessage({ ...session, teardown: 'tearing_down' })).toContain('being destroyed');
    expect(teardownMessage({ ...session, leftovers: [{ kind: 'file', what: '/run/x' }] })).toContain('file /run/x');
  });
});

it('a sentence has a capital and one full stop', () => {
  expect(sentence('the VM ended ')).toBe('The VM ended.');
  expect(sentence('Done.')).toBe('Done.');
  expect(sentence('')).toBe('');
});

it('a refused link says what to do', () => {
  expect(problemMessage(new Problem(410, 'Gone', '', 'link_used')).title).toBe('This link has already been used');
  expect(problemMessage(undefined).retry).toBe(true);
});
