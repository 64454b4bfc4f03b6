// Made from the OpenAPI document by `npm run wire-types`; do not edit.

/**
 * A session as its end user may see it.
 */
export interface EndUserSessionView {
  awaiting?: AwaitingView | null;
  /**
   * When the session was created, in milliseconds since the Unix epoch.
   */
  createdAt: number;
  credential: CredentialView;
  /**
   * When the time to live expires, in milliseconds since the Unix epoch.
   */
  deadline: number;
  /**
   * Whether the guest is emulated, which is slow and isolates it weakly. Null until the sandbox runs.
   */
  emulated?: boolean | null;
  /**
   * When the session ends unless the end user becomes active, in milliseconds since the Unix epoch.
   */
  idleDeadline?: number | null;
  /**
   * What the end user has to do, one or two sentences.
   */
  instructions: string;
  /**
   * What isolates the sandbox from the host.
   */
  isolation: 'vm' | 'none';
  /**
   * What a check still found on the machine after the teardown.
   */
  leftovers: Leftover[];
  /**
   * How the end user signs in.
   */
  method: 'browser' | 'paste_code' | 'device_code';
  operator: Named;
  provider: Named;
  reason?: Reason | null;
  /**
   * The server's clock, in milliseconds since the Unix epoch, because the viewer's may be wrong.
   */
  serverNow: number;
  /**
   * The session's id, a UUID.
   */
  sessionId: string;
  /**
   * The host of the sign-in page.
   */
  signInUrlHost?: string | null;
  /**
   * The session's state.
   */
  state: 'requested' | 'booting' | 'preparing' | 'ready' | 'awaiting_user' | 'capturing' | 'sealed' | 'ended';
  teardown?: ('tearing_down' | 'torn_down') | null;
  /**
   * The session's events, oldest first.
   */
  timeline: TimelineEntry[];
  /**
   * The views of the sandbox that others than the requester opened, oldest first.
   */
  visitsOfOthers: Visit[];
}
/**
 * What the end user has to do, while the state is `awaiting_user`.
 */
export interface AwaitingView {
  /**
   * With `device_code`: the code that the page asks for.
   */
  code?: string | null;
  /**
   * When the turn ends, in milliseconds since the Unix epoch: the session's time to live expires or the
   * tool itself gives up, whichever comes first; the former once the
   * tool waits longer than it was expected to.
   */
  deadline: number;
  /**
   * What the end user has to do, one or two sentences.
   */
  instructions: string;
  /**
   * How the end user signs in.
   */
  method: 'browser' | 'paste_code' | 'device_code';
  /**
   * The lines that the tool's terminal shows, where there is no page.
   */
  screen: string[];
  /**
   * Whether the code that the last page shows must be sent back (`POST …/code`).
   */
  takesCode: boolean;
  /**
   * The page to sign in on; null where the tool shows a prompt that its provider file does not
   * describe.
   */
  url?: string | null;
}
/**
 * The session's credential.
 */
export interface CredentialView {
  /**
   * The files that the credential may contain, relative to the home directory; with a `*` where a name is
   * known only afterwards.
   */
  files: string[];
  /**
   * Who can open the sealed credential.
   */
  openableBy: 'caller' | 'operator';
  /**
   * The age recipient that the credential is or will be sealed to.
   */
  recipient: string;
  /**
   * Whether the credential is sealed and stored.
   */
  status: 'none' | 'sealed';
  terms?: TermsView | null;
}
/**
 * What the provider's terms say about who may hold the credential; absent if the provider file names no
 * terms.
 */
export interface TermsView {
  /**
   * Who may hold the credential.
   */
  custody: 'recipient_only' | 'vault';
  /**
   * Whether the operator allows the vault nevertheless (`serve --allow-vault-custody`).
   */
  overridden: boolean;
  /**
   * The URL of the terms.
   */
  page: string;
  /**
   * The day on which they were read, such as `2026-11-27`.
   */
  read: string;
}
/**
 * Something that a session left on the machine.
 */
export interface Leftover {
  /**
   * `process`, `socket`, `file`, `mount`, `cgroup`, `ipc`, or `unseen` for a place that could not be
   * looked at.
   */
  kind: string;
  /**
   * A pid and command line, or a path.
   */
  what: string;
}
/**
 * Who operates this server.
 */
export interface Named {
  /**
   * The id; empty where there is none.
   */
  id: string;
  /**
   * The display name.
   */
  name: string;
}
/**
 * The tool to sign in to.
 */
export interface Named {
  /**
   * The id; empty where there is none.
   */
  id: string;
  /**
   * The display name.
   */
  name: string;
}
/**
 * Why the session ended; null until then.
 */
export interface Reason {
  /**
   * A stable code; `docs/reference/problems.md` lists all of them.
   */
  code: string;
  /**
   * The values of the sentence.
   */
  detail: {};
  /**
   * One sentence for people.
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
             * The number of the session's link that they opened.
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
  waited?: Waited | null;
}
/**
 * Of a death: why.
 */
export interface Explanation {
  /**
   * What to do; absent where there is no useful advice.
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
   * How certain the explanation is.
   */
  confidence: 'certain' | 'likely' | 'unknown';
  /**
   * The evidence, a line each.
   */
  evidence: string[];
  /**
   * One sentence: what happened to which service.
   */
  sentence: string;
}
/**
 * Of the `agent_connected` of a clone: how long its start waited for the VMM and the guest.
 */
export interface Waited {
  /**
   * For the guest: from that answer until the agent's hello was read.
   */
  guestMicros: number;
  /**
   * For the VMM's answer to the one call that lets the guest run.
   */
  resumeMicros: number;
  /**
   * For the VMM to start and load: from when its process was there until it had answered the last call of
   * that, and then for its answer to what executes the guest. Absent for a clone that was loaded before its
   * session.
   */
  vmmStartMicros?: number | null;
}
/**
 * A view of a sandbox that somebody opened.
 */
export interface Visit {
  /**
   * When it was opened, in milliseconds since the Unix epoch.
   */
  at: number;
  /**
   * `link` (exchanged for the viewer's cookie), `picture`, `terminal` or `vnc`.
   */
  opened: 'link' | 'picture' | 'terminal' | 'vnc';
  /**
   * Who opened it: `{"by":"link","generation":1}` (the session's first link), or
   * `{"by":"api_key","key":"deploy"}`.
   */
  viewer:
    | {
        by: 'link';
        /**
         * The link's number.
         */
        generation: number;
      }
    | {
        by: 'api_key';
        /**
         * The key's name.
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
    | 'request_too_slow'
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
