//! The beginning of a sign-in: what was asked for is checked, recorded, and given a task.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use anteroom_api::{
    Begun, Idempotency, Principal, Problem, ProblemCode, StartAnswer, StartRequest,
};
use anteroom_clock::now;
use anteroom_guest_protocol::ScreenSize;
use anteroom_node_protocol::{
    Node, NotPrepared, PrepareSession, SandboxQuery, SignInConfig, StartSession,
};
use anteroom_provider::{InjectedFile, Provider, ProviderKind};
use anteroom_session::{
    Actor, InvalidId, Method, OpenableBy, ProviderId, Session, SessionId, SessionParams, UserId,
};

use super::actor::{self, StartPlan};
use super::admission::Refused;
use super::choices::Choices;
use super::declared::declared;
use super::injected::injected;
use super::record::Record;
use super::reservation::Reservation;
use super::shortage::Shortage;
use super::store::Store;
use super::{Controller, internal, not_stored, secret};

/// The desktop of every sandbox.
pub const SCREEN: ScreenSize = ScreenSize { width: 1280, height: 720 };
const DEFAULT_TTL_SECONDS: u64 = 900;

/// Shortest and longest wait that is suggested to a caller when all capacity is in use, in seconds.
const RETRY_AFTER: std::ops::RangeInclusive<u64> = 5..=60;

impl<N: Node, S: Store> Controller<N, S> {
    /// Begins a sign-in, or finds the one that the same call began.
    pub(super) async fn begin_once(
        &self,
        request: StartRequest,
        idempotency: Option<Idempotency>,
        principal: &Principal,
    ) -> Result<Begun, Problem> {
        let Some(call) = idempotency else {
            return Ok(Begun::Now(self.begin(request, None, principal).await?));
        };
        let _answering = self.calls.enter(&call).ok_or_else(|| {
            let detail =
                "an earlier call with this Idempotency-Key is still in progress; try again in a second";
            Problem::new(ProblemCode::IdempotencyKeyInUse, detail).retry_after(1)
        })?;
        match self.store.begun_by(&call, now().0).await.map_err(internal)? {
            None => Ok(Begun::Now(self.begin(request, Some(&call), principal).await?)),
            Some((_, body)) if body != call.body => {
                let detail = "this Idempotency-Key was already used with a different request body; use a new key";
                Err(Problem::new(ProblemCode::IdempotencyKeyReused, detail))
            }
            Some((session, _)) => {
                Ok(Begun::Before(self.begun_before(session, principal.actor()).await?))
            }
        }
    }

    async fn begin(
        &self,
        request: StartRequest,
        idempotency: Option<&Idempotency>,
        principal: &Principal,
    ) -> Result<StartAnswer, Problem> {
        let checked = self.checked(request)?;
        let _starting = self.starting.read().await;
        if self.stopping.load(Ordering::SeqCst) {
            let detail = "this controller is shutting down and starts no new sign-ins; try again when it runs again";
            return Err(Problem::new(ProblemCode::Stopping, detail));
        }
        self.check_isolation(&checked.provider)?;
        let node = &self.context.node;
        let sandbox = SandboxQuery::of(&checked.provider, &checked.choices.preferences);
        let capacity = node.capacity(sandbox.clone()).await;
        let admitted =
            self.admission.admit(capacity).map_err(|refused| self.no_capacity(refused))?;
        // A clone that waits is not held for a session that waits too.
        let may_be_clone = sandbox.may_be_clone && admitted.has_capacity();
        let prepare = PrepareSession {
            session: SessionId::generate(),
            sandbox: SandboxQuery { may_be_clone, ..sandbox.clone() },
            screen: SCREEN,
        };
        let prepared = node.prepare(prepare).await.map_err(not_prepared)?;
        let id = prepared.session;
        admitted.serves(id);
        let browser_ip = browser_ip(id);
        let reservation = Reservation::new(Arc::clone(node), id);
        let params = self.params(id, &checked, principal);
        let (session, effects) = Session::request(params);
        let Checked { provider, recipient, openable_by, files, choices, .. } = checked;
        let Choices { method, instructions, preferences, .. } = choices;
        let record = Record {
            session,
            provider_name: provider.name.clone(),
            instructions,
            driver: node.description().driver,
            user: prepared.user,
            confined: None,
            accelerator: None,
            recipient: recipient.clone(),
            openable_by,
            declared: declared(&provider),
            provider_terms: provider.terms.clone(),
            browser_ip,
            sign_in_url: None,
            credential_stored_at: None,
            egress: Vec::new(),
            visits: Vec::new(),
            timeline: Vec::new(),
        };
        let link_secret = secret();
        self.store.create(&record, &link_secret, idempotency).await.map_err(not_stored)?;
        let sign_in = SignInConfig {
            session: id,
            provider,
            method,
            preferences,
            files,
            recipient,
            browser_ip,
            operator_name: self.settings.operator_name.clone(),
            learns: self.settings.learn_egress,
        };
        let start = StartSession { sign_in, screen: SCREEN };
        let answer = StartAnswer {
            success: true,
            session_id: id.to_string(),
            provider: record.session.params.provider.to_string(),
            method,
            browser_ip: browser_ip.to_string(),
            viewer_url: self.viewer_url(id, &link_secret),
            state: record.session.state.name(),
        };
        tracing::info!(session = %id, provider = %answer.provider, "session requested");
        self.context.metrics.started(&answer.provider);
        let plan = StartPlan { start, sandbox, admitted };
        actor::start(record, effects, Some((plan, reservation)), self.context.clone());
        Ok(answer)
    }

    /// Checks what can be checked before there is anything to take back.
    fn checked(&self, request: StartRequest) -> Result<Checked, Problem> {
        let invalid = |detail: String| Problem::new(ProblemCode::InvalidValue, detail);
        let provider = self.provider(&request.provider)?;
        let user = request.user_id.as_deref().map(str::parse).transpose();
        let user = user.map_err(|error: InvalidId| invalid(error.to_string()))?;
        let (recipient, openable_by) = self.sealed_to(&provider, request.recipient)?;
        let ttl_seconds = self.ttl_seconds(request.ttl_seconds).map_err(invalid)?;
        let files = injected(request.files).map_err(invalid)?;
        let StartRequest { method, locale, time_zone, .. } = request;
        let choices = Choices::of(&provider, method, locale, time_zone).map_err(invalid)?;
        Ok(Checked { provider, user, recipient, openable_by, ttl_seconds, files, choices })
    }

    fn params(&self, id: SessionId, checked: &Checked, principal: &Principal) -> SessionParams {
        let Checked { provider, choices: Choices { method, chosen, .. }, .. } = checked;
        SessionParams {
            id,
            provider: provider.id.clone(),
            user: checked.user.clone(),
            started_by: Some(principal.actor()),
            method: *method,
            method_chosen: *chosen,
            created_at: now(),
            ttl_seconds: checked.ttl_seconds,
            max_seconds: self.settings.max_session_seconds,
            idle_seconds: self.settings.idle_seconds,
            start: provider.login_by(*method).map(|login| login.start).unwrap_or_default(),
            tool_waits_seconds: tool_waits(provider, *method),
        }
    }

    fn provider(&self, name: &str) -> Result<Provider, Problem> {
        let id: Option<ProviderId> = name.parse().ok();
        let mut providers = self.settings.providers.now();
        id.and_then(|id| providers.remove(&id)).ok_or_else(|| {
            let known = providers.keys().map(ToString::to_string);
            let known = known.collect::<Vec<_>>().join(", ");
            let detail = format!("there is no provider {name:?}; the providers are {known}");
            Problem::new(ProblemCode::UnknownProvider, detail)
        })
    }

    fn ttl_seconds(&self, asked: Option<u64>) -> Result<u64, String> {
        let (least, most) = (self.settings.min_ttl_seconds, self.settings.max_session_seconds);
        let ttl_seconds = asked.unwrap_or(DEFAULT_TTL_SECONDS.min(most));
        if (least..=most).contains(&ttl_seconds) {
            Ok(ttl_seconds)
        } else {
            Err(format!("ttlSeconds is {ttl_seconds} and must be {least} to {most}"))
        }
    }

    /// The answer to a call that began this session before. The link of then is not kept in clear, so
    /// there is a new one.
    async fn begun_before(&self, id: SessionId, by: Actor) -> Result<StartAnswer, Problem> {
        let record = self.record(id).await?;
        Ok(StartAnswer {
            success: true,
            session_id: id.to_string(),
            provider: record.session.params.provider.to_string(),
            method: record.session.params.method,
            browser_ip: record.browser_ip.to_string(),
            viewer_url: self.new_link(&record, by).await.map_err(not_stored)?,
            state: self.state(id).await?,
        })
    }

    /// Sign-ins with consequences need a boundary that holds.
    fn check_isolation(&self, provider: &Provider) -> Result<(), Problem> {
        match self.settings.refuses_real(self.context.node.description().accelerator) {
            Some(weak) if provider.kind == ProviderKind::Real => {
                let detail = format!(
                    "{} signs in to real accounts (kind = \"real\"), and {weak}",
                    provider.name
                );
                Err(Problem::new(ProblemCode::IsolationTooWeak, detail))
            }
            _ => Ok(()),
        }
    }

    /// There is too little for one more: the suggested wait ends when the first session must have ended. For
    /// what can never be, none is suggested.
    fn no_capacity(&self, Refused { shortage, queued }: Refused) -> Problem {
        if let Shortage::TooLarge { .. } = shortage {
            return Problem::new(ProblemCode::NoCapacity, shortage.to_string());
        }
        let deadlines =
            self.context.live.all().into_iter().map(|handle| handle.view.borrow().deadline);
        let first = deadlines.min().unwrap_or_default().saturating_sub(now().0) / 1000;
        let seconds = first.clamp(*RETRY_AFTER.start(), *RETRY_AFTER.end());
        let queue = match queued {
            // Those are what it says.
            _ if matches!(shortage, Shortage::Queue { .. }) => String::new(),
            0 => String::new(),
            1 => ", and one more session is waiting".to_owned(),
            queued => format!(", and {queued} more sessions are waiting"),
        };
        let again = format!("try again in {seconds} s");
        let problem = match shortage {
            // Nobody's end frees it.
            Shortage::Disk { .. } => {
                let detail = format!("{shortage}{queue}; free space on it, or {again}");
                Problem::new(ProblemCode::StorageUnavailable, detail)
            }
            _ => Problem::new(ProblemCode::NoCapacity, format!("{shortage}{queue}; {again}")),
        };
        problem.retry_after(seconds)
    }
}

/// A request whose values are valid.
struct Checked {
    provider: Provider,
    user: Option<UserId>,
    recipient: String,
    openable_by: OpenableBy,
    ttl_seconds: u64,
    files: Vec<InjectedFile>,
    choices: Choices,
}

fn not_prepared(why: NotPrepared) -> Problem {
    match why {
        NotPrepared::NoImage(detail) => Problem::new(ProblemCode::NoImage, detail),
        NotPrepared::ImageNotVerified(detail) => {
            Problem::new(ProblemCode::ImageNotVerified, detail)
        }
        NotPrepared::NoLogFolder(_) => not_stored(why),
        NotPrepared::Failed(_) => internal(why),
    }
}

/// How long the CLI waits for the end user by itself, in seconds, where its provider file says so.
fn tool_waits(provider: &Provider, method: Method) -> Option<u64> {
    provider.login_by(method).and_then(|login| login.gives_up_after_seconds)
}

/// An address of 10.213.0.0/16 for the guest's dummy interface. It exists in the guest alone, so two
/// sessions could have the same; the id's random part makes that rare all the same.
fn browser_ip(id: SessionId) -> Ipv4Addr {
    use sha2::Digest;
    let hash = sha2::Sha256::digest(id.to_string());
    Ipv4Addr::new(10, 213, hash[0], hash[1].clamp(2, 254))
}
