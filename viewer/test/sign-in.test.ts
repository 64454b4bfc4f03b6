import { describe, expect, it } from 'vitest';

import { Problem } from '../src/api';
import { refusalMessage } from '../src/sign-in/code-form';
import { pageAddress } from '../src/sign-in/page-link';
import { codeNews, hostNews } from '../src/sign-in/news';

const entry = (at: number, kind: string, message = kind) => ({ at, kind, message });

describe('what became of a code', () => {
  it('is what was said last, and since the code', () => {
    expect(codeNews([])).toEqual({});
    const wrong = [entry(1, 'sign_in_url'), entry(2, 'code_entered'), entry(3, 'end_user_notified', 'it is wrong'), entry(4, 'viewer_joined')];
    expect(codeNews(wrong)).toEqual({ enteredAt: 2, message: 'It is wrong.' });
    expect(codeNews([...wrong, entry(5, 'end_user_notified', 'it is old')])).toEqual({ enteredAt: 2, message: 'It is old.' });
    expect(codeNews([...wrong, entry(6, 'code_entered')])).toEqual({ enteredAt: 6 });
  });

  it('is shown also where no code is typed', () => {
    expect(codeNews([entry(1, 'end_user_notified', 'wait a minute')])).toEqual({ message: 'Wait a minute.' });
  });
});

describe('a host that cannot be reached', () => {
  it('is shown until it is reached, and says nothing of the code', () => {
    const failed = [entry(1, 'code_entered'), entry(2, 'host_unreachable', 'the sandbox cannot reach a.test')];
    expect(hostNews(failed)).toBe('The sandbox cannot reach a.test.');
    expect(codeNews(failed)).toEqual({ enteredAt: 1 });
    expect(hostNews([...failed, entry(3, 'host_reached')])).toBeUndefined();
    expect(hostNews([])).toBeUndefined();
  });
});

describe('a code that does not get through', () => {
  it('is the server’s own message, where it has one for the end user', () => {
    expect(refusalMessage(new Problem(422, 'Refused', 'this is no such code', 'code_refused'))).toBe('This is no such code.');
    expect(refusalMessage(new Problem(409, 'Wrong state', 'the session is capturing and does not accept a code', 'wrong_state')))
      .toBe('The session is capturing and does not accept a code.');
    expect(refusalMessage(new Problem(504, 'Too slow', 'no answer within 20 s', 'too_slow'))).toMatch(/^The sign-in desktop did not respond/);
    expect(refusalMessage(new TypeError('Failed to fetch'))).toMatch(/^The server does not respond/);
  });
});

describe('the page’s address', () => {
  it('is one that a browser opens as a page', () => {
    expect(pageAddress('https://claude.ai/oauth/authorize?code=true')?.host).toBe('claude.ai');
    expect(pageAddress('http://127.0.0.1:8080/')?.host).toBe('127.0.0.1:8080');
    for (const url of ['', 'claude.ai', 'javascript:alert(1)', 'data:text/html,x', 'file:///etc/passwd', 'mailto:a@b.test']) {
      expect(pageAddress(url)).toBeUndefined();
    }
  });

  it('names the host that is really asked', () => {
    expect(pageAddress('https://github.com@evil.test/login')?.host).toBe('evil.test');
    expect(pageAddress('https://gіthub.com/')?.host).toMatch(/^xn--/);
  });
});
