// Made from the OpenAPI document by `npm run wire-types`; do not edit.

/**
 * A session as its viewer may see it.
 */
export interface ViewerView {
  awaiting?: AwaitingView | null;
  /**
   * Milliseconds since the Unix epoch.
   */
  createdAt: number;
  credential: CredentialView;
  /**
   * When its time to live is over, in milliseconds since the Unix epoch.
   */
  deadline: number;
  /**
   * Whether the guest is emulated.
   */
  emulated: boolean;
  /**
   * When it ends unless the end user does something, in milliseconds since the Unix epoch.
   */
  idleDeadline?: number | null;
  /**
   * What the end user has to do.
   */
  instructions: string;
  /**
   * What stands between the sandbox and the host.
   */
  isolation: 'vm' | 'none';
  /**
   * What was still found after the teardown.
   */
  leftovers: Leftover[];
  /**
   * How they sign in.
   */
  method: 'browser' | 'paste_code' | 'device_code';
  operator: Named;
  provider: Named;
  reason?: Reason | null;
  /**
   * The host's clock, in milliseconds since the Unix epoch: the viewer's may be wrong.
   */
  serverNow: number;
  /**
   * Its id.
   */
  sessionId: string;
  /**
   * Host name of the sign-in page.
   */
  signInUrlHost?: string | null;
  /**
   * Where it stands.
   */
  state: 'requested' | 'booting' | 'preparing' | 'ready' | 'awaiting_user' | 'capturing' | 'sealed' | 'ended';
  teardown?: ('tearing_down' | 'torn_down') | null;
  /**
   * What happened, oldest first.
   */
  timeline: TimelineEntry[];
  /**
   * What of the sandbox was opened by others than whoever asks, oldest first.
   */
  visitsOfOthers: Visit[];
}
/**
 * Their turn, while the state is `awaiting_user`.
 */
export interface AwaitingView {
  /**
   * With `device_code`: what the page asks for.
   */
  code?: string | null;
  /**
   * Until when, in milliseconds since the Unix epoch: the session's time is over, or the tool gives up
   * by itself, whichever comes first. Once the tool's time has passed and it still waits, the session's.
   */
  deadline: number;
  /**
   * What to do, one or two sentences.
   */
  instructions: string;
  /**
   * How the end user signs in.
   */
  method: 'browser' | 'paste_code' | 'device_code';
  /**
   * Without a page: what the tool's terminal shows.
   */
  screen: string[];
  /**
   * Whether the code that the last page shows is to be brought back (`POST …/code`).
   */
  takesCode: boolean;
  /**
   * The page to sign in on; absent where the tool asks something that its provider file does not
   * know.
   */
  url?: string | null;
}
/**
 * Who can open the credential.
 */
export interface CredentialView {
  /**
   * The files that may come out of it, from the home on; with a `*` where their names are known only
   * afterwards.
   */
  files: string[];
  /**
   * Who can open it.
   */
  openableBy: 'caller' | 'operator';
  /**
   * The age recipient it is or will be sealed to.
   */
  recipient: string;
  /**
   * Whether there is one.
   */
  status: 'none' | 'sealed';
  terms?: TermsView | null;
}
/**
 * What the provider's terms say of who may hold it; absent where its file names none.
 */
export interface TermsView {
  /**
   * Who may hold the credential.
   */
  custody: 'recipient_only' | 'vault';
  /**
   * Whether it is sealed to the vault all the same, by the operator's own word.
   */
  overridden: boolean;
  /**
   * The page that was read.
   */
  page: string;
  /**
   * On which day, as `2026-11-27`.
   */
  read: string;
}
/**
 * Something of a session that should be gone and was found.
 */
export interface Leftover {
  /**
   * `process`, `socket`, `file`, `mount`, `cgroup`, `ipc`, or `unseen` for a place that could not be
   * looked at.
   */
  kind: string;
  /**
   * Which: a pid and command line, a path.
   */
  what: string;
}
/**
 * Who runs this Anteroom.
 */
export interface Named {
  /**
   * Machine name; empty where there is none.
   */
  id: string;
  /**
   * For people.
   */
  name: string;
}
/**
 * Why it ended.
 */
export interface Reason {
  /**
   * Stable machine name; `docs/reference/problems.md` lists them.
   */
  code: string;
  /**
   * The values behind it.
   */
  detail: {};
  /**
   * One sentence for an end user.
   */
  message: string;
}
/**
 * One line of a session's history.
 */
export interface TimelineEntry {
  /**
   * When the controller learned of it, by its own clock.
   */
  at: number;
  by?:
    | (
        | {
            /**
             * The name of the API key that they used.
             */
            key: string;
            kind: 'caller';
          }
        | {
            /**
             * Which of the session's links they opened.
             */
            generation: number;
            kind: 'end_user';
          }
        | {
            kind: 'operator';
          }
      )
    | null;
  explanation?: Explanation | null;
  /**
   * Stable machine name, such as `sandbox_started` or `ended`.
   */
  kind: string;
  /**
   * One sentence for an end user.
   */
  message: string;
}
/**
 * Of a death: why.
 */
export interface Explanation {
  /**
   * What to do about it; absent where nothing sensible can be said.
   */
  advice?: string | null;
  /**
   * The kind of cause.
   */
  cause:
    | 'missing_cpu_feature'
    | 'deliberate_trap'
    | 'bad_instruction'
    | 'bad_memory_access'
    | 'stack_overflow'
    | 'bad_arithmetic'
    | 'out_of_memory'
    | 'aborted'
    | 'failed_check'
    | 'uncaught_exception'
    | 'syntax_error'
    | 'missing_program'
    | 'missing_interpreter'
    | 'missing_library'
    | 'not_executable'
    | 'permission_denied'
    | 'already_in_use'
    | 'forbidden_system_call'
    | 'limit_reached'
    | 'stall'
    | 'kernel_panic'
    | 'guest_ended_itself'
    | 'killed_by_signal'
    | 'ended_by_self'
    | 'unknown';
  /**
   * How sure it is.
   */
  confidence: 'certain' | 'likely' | 'unknown';
  /**
   * What it rests on, a line each.
   */
  evidence: string[];
  /**
   * One sentence for an end user: what happened to which service.
   */
  sentence: string;
}
/**
 * Something of a sandbox that was opened.
 */
export interface Visit {
  /**
   * When, in milliseconds since the Unix epoch.
   */
  at: number;
  /**
   * `link` (it was exchanged for its cookie), `picture`, `terminal` or `vnc`.
   */
  opened: 'link' | 'picture' | 'terminal' | 'vnc';
  /**
   * `{"by":"link","generation":1}` (the link that was made first), or `{"by":"api_key","key":"deploy"}`.
   */
  viewer:
    | {
        by: 'link';
        /**
         * Which.
         */
        generation: number;
      }
    | {
        by: 'api_key';
        /**
         * Its name.
         */
        key: string;
      };
}
/**
 * An error as a caller sees it.
 */
export interface Problem {
  /**
   * When the link was used or revoked, in milliseconds since the Unix epoch.
   */
  at?: number | null;
  /**
   * Stable machine name; `docs/reference/problems.md` lists them.
   */
  code:
    | 'bad_request'
    | 'unauthorized'
    | 'viewer_revoked'
    | 'foreign_origin'
    | 'not_admin'
    | 'no_such_session'
    | 'unknown_provider'
    | 'no_such_route'
    | 'no_such_key'
    | 'wrong_method'
    | 'wrong_state'
    | 'key_exists'
    | 'idempotency_key_in_use'
    | 'link_used'
    | 'body_too_large'
    | 'unknown_host'
    | 'invalid_value'
    | 'custody_not_allowed'
    | 'idempotency_key_reused'
    | 'offer_refused'
    | 'code_refused'
    | 'too_many_connections'
    | 'not_web_socket'
    | 'internal'
    | 'no_image'
    | 'image_not_verified'
    | 'isolation_too_weak'
    | 'no_capacity'
    | 'storage_unavailable'
    | 'stopping'
    | 'too_slow';
  /**
   * What went wrong and what to do, one sentence.
   */
  detail: string;
  /**
   * The HTTP status.
   */
  status: number;
  /**
   * The name of the status.
   */
  title: string;
  /**
   * Always `about:blank`: the code says more.
   */
  type: string;
}
/**
 * What becomes of a code that was brought.
 */
export interface CodeTaken {
  /**
   * Whether it took the place of an earlier one that was not typed yet, and is not any more.
   */
  replaced: boolean;
  /**
   * Whether it is typed already; else it waits until the tool asks for it (`code_entered` in the
   * timeline).
   */
  typed: boolean;
}
