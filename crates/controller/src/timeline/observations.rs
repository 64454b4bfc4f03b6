//! The timeline's entries for what a session's runner observed.

use anteroom_session::counted::counted;
use anteroom_session::{
    Accelerator, Boundaries, Cloned, Confined, EgressVerdict, Observation, Prompt, PromptReason,
    Remedy, SessionId, View, service_title,
};

use super::{host_of, of_view, short};

/// Where the tool waits for the end user.
const SANDBOX_READY: &str = "the sandbox is ready; the tool starts when the end user arrives";

/// Where a name leads inside: to this host, or into a private network.
const FORBIDDEN_ADDRESS: &str = "its name resolves to an address that no sandbox may reach";

fn what_runs(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "a VM on KVM",
        Accelerator::Tcg => "an emulated VM",
        Accelerator::None => "the agent on this host, without isolation",
    }
}

/// What confines the session's processes, and what this machine does not offer for that.
fn held(confined: &Confined) -> String {
    let Confined { sandbox, runner, missing } = confined;
    let of = |what: &str, held: &Boundaries| {
        let mut by = Vec::new();
        if !held.has_capabilities {
            by.push("no capabilities".to_owned());
        }
        if !held.namespaces.is_empty() {
            let names: Vec<_> = held.namespaces.iter().map(|name| name.as_str()).collect();
            let noun = if names.len() == 1 { "namespace" } else { "namespaces" };
            by.push(format!("its own {noun} ({})", names.join(", ")));
        }
        if held.cgroup.is_some() {
            by.push("its own cgroup".to_owned());
        }
        if held.filters_system_calls {
            by.push("a system call filter".to_owned());
        }
        let with = match by.split_last() {
            None => String::new(),
            Some((last, [])) => format!(" with {last}"),
            Some((last, others)) => format!(" with {} and {last}", others.join(", ")),
        };
        format!("{what} runs as user {}{with}", held.uid)
    };
    let mut said =
        format!("{}; {}", of("the sandbox's process", sandbox), of("the runner", runner));
    if !missing.is_empty() {
        said.push_str(&format!("; this machine cannot provide {}", missing.join(", ")));
    }
    said
}

pub fn of_observation(observation: &Observation) -> Option<(&'static str, String)> {
    Some(match observation {
        Observation::SandboxStarted { driver, accelerator, cloned, .. } => {
            let cloned = match cloned {
                None => String::new(),
                Some(Cloned { template, waited_ms: None }) => {
                    format!(", a clone of template {template}")
                }
                Some(Cloned { template, waited_ms: Some(waited_ms) }) => format!(
                    ", a clone of template {template} that had waited for {} s",
                    waited_ms / 1000
                ),
            };
            let what = what_runs(*accelerator);
            ("sandbox_started", format!("the {driver} driver started {what}{cloned}"))
        }
        Observation::Confined(confined) => ("confined", held(confined)),
        Observation::AgentConnected { agent_version, kernel, .. } => (
            "agent_connected",
            format!("the agent (version {agent_version}) connected from Linux {kernel}"),
        ),
        Observation::FilesInjected { count: 0 } => return None,
        Observation::FilesInjected { count } => {
            let files = counted(*count, "file was", "files were");
            ("files_injected", format!("{files} copied into the sandbox and verified"))
        }
        Observation::ServiceReady { service } => {
            ("service_ready", format!("{} is ready", service_title(service)))
        }
        Observation::ServiceExited { explanation, then, .. } => {
            ("service_exited", format!("{}; {then}", explanation.sentence))
        }
        Observation::ServiceGivenUp { explanation, .. } => {
            ("service_given_up", explanation.sentence.clone())
        }
        Observation::ChildDied { explanation, .. } => ("child_died", explanation.sentence.clone()),
        Observation::SandboxReady => ("sandbox_ready", SANDBOX_READY.to_owned()),
        Observation::SignInAwaited { .. }
        | Observation::QuestionAnswered { .. }
        | Observation::AddressIgnored { .. }
        | Observation::CodeEntered
        | Observation::CodeReplaced => return of_terminal(observation),
        Observation::EndUserNotified { says } => ("end_user_notified", says.clone()),
        Observation::CredentialVerified { said } => (
            "credential_verified",
            format!("the tool's status command confirmed the sign-in: {said}"),
        ),
        Observation::SignInPageOpened => {
            ("sign_in_page_opened", "the browser opened the sign-in page".to_owned())
        }
        Observation::FirstFrameSent
        | Observation::LiveFrameShown
        | Observation::ViewerJoined { .. }
        | Observation::ViewerLeft => return of_picture(observation),
        Observation::CredentialFound => {
            ("credential_found", "the tool wrote a complete credential".to_owned())
        }
        Observation::CredentialSealed { .. } => {
            ("credential_sealed", "the credential was sealed in the guest".to_owned())
        }
        Observation::HostContacted { .. }
        | Observation::HostUnreachable { .. }
        | Observation::HostReached { .. } => return of_egress(observation),
        Observation::GuestPoweredOff => {
            ("guest_powered_off", "the guest powered off as requested".to_owned())
        }
        Observation::GuestNotPoweredOff { exit } => {
            let why = match exit {
                Some(exit) => format!("the sandbox's process {exit}"),
                None => "it was still running when its time for that was over".to_owned(),
            };
            ("guest_not_powered_off", format!("the guest did not power off as requested: {why}"))
        }
        // The second needs the session's id: see `host_needed`.
        Observation::EndUserActive | Observation::HostNeeded { .. } | Observation::Failed(_) => {
            return None;
        }
    })
}

/// The refused host on which a page continues, and what the operator can do.
pub fn host_needed(host: &str, provider: &str, remedy: Remedy, session: SessionId) -> String {
    let add = format!("add {host:?} to allow in [egress] of its provider file");
    let (what, to_do) = match remedy {
        Remedy::List => (format!("is not allowed by {provider}"), format!("to allow it, {add}")),
        Remedy::ListOrAllow => (
            format!("is not allowed by {provider}"),
            format!(
                "to allow it, {add}; for this session only, run `anteroom egress allow {session} {host}`"
            ),
        ),
        Remedy::NameAndMap => (
            "is an address; hosts can be reached only by name".to_owned(),
            format!(
                "add the host's name to allow in [egress] of the provider file of {provider}, and map it to \
                 its address with [[egress.map]] if DNS does not know it"
            ),
        ),
        Remedy::ListAndMap => (
            "is a name of a private network, which sandboxes cannot reach".to_owned(),
            format!(
                "to reach it, add it to allow in [egress] of the provider file of {provider} and map it to \
                 an address with [[egress.map]]"
            ),
        ),
        Remedy::Map => (
            format!("is allowed, but {FORBIDDEN_ADDRESS}"),
            format!(
                "to reach it anyway, map it to its address with [[egress.map]] in the provider file of {provider}"
            ),
        ),
    };
    format!("the page continues at {host}, which {what}; {to_do}")
}

/// What a viewer of the picture did, and got.
fn of_picture(observation: &Observation) -> Option<(&'static str, String)> {
    Some(match observation {
        Observation::ViewerJoined { viewer } => of_view(View::Picture, viewer),
        Observation::FirstFrameSent => (
            "first_frame_sent",
            "the first frame was sent to the viewer; a clone's may be its template's picture"
                .to_owned(),
        ),
        Observation::LiveFrameShown => (
            "live_frame_shown",
            "what the sandbox itself shows was sent to a viewer for the first time".to_owned(),
        ),
        Observation::ViewerLeft => ("viewer_left", "the viewer left".to_owned()),
        _ => return None,
    })
}

/// What became of a connection out of the sandbox.
fn of_egress(observation: &Observation) -> Option<(&'static str, String)> {
    Some(match observation {
        Observation::HostContacted { host, port, verdict, detail, .. } => match verdict {
            EgressVerdict::Allowed => return None,
            EgressVerdict::RefusedByPolicy | EgressVerdict::RefusedByLimit => {
                ("host_refused", format!("{host}:{port} was refused: {}", cause(detail)))
            }
            EgressVerdict::RefusedRequest if host.is_empty() => {
                ("request_refused", format!("a connection was refused: {}", cause(detail)))
            }
            EgressVerdict::RefusedRequest => (
                "request_refused",
                format!("a connection to {host}:{port} was refused: {}", cause(detail)),
            ),
            EgressVerdict::RefusedAddress => {
                ("host_refused", format!("{host}:{port} was refused: {FORBIDDEN_ADDRESS}"))
            }
            EgressVerdict::Failed => {
                ("host_failed", format!("{host}:{port} could not be reached: {}", cause(detail)))
            }
        },
        Observation::HostUnreachable { host, cause } => (
            "host_unreachable",
            format!(
                "the sandbox cannot reach {host} ({cause}); if the sign-in does not continue, start it \
                 again in a few minutes"
            ),
        ),
        Observation::HostReached { host } => {
            ("host_reached", format!("the sandbox can reach {host} now"))
        }
        _ => return None,
    })
}

/// What the tool's terminal shows.
fn of_terminal(observation: &Observation) -> Option<(&'static str, String)> {
    Some(match observation {
        Observation::SignInAwaited { prompt: Prompt::Page { url, code } } => {
            let code = if code.is_some() { ", with a code" } else { "" };
            ("sign_in_url", format!("the tool asks to sign in at {}{code}", host_of(url)))
        }
        Observation::SignInAwaited { prompt: Prompt::Terminal { screen, reason } } => {
            let last = screen.last().map(String::as_str).unwrap_or_default();
            match reason {
                PromptReason::Unknown => (
                    "unknown_prompt",
                    format!(
                        "the tool is waiting at a prompt that its provider file does not describe; its last line: {last}"
                    ),
                ),
                PromptReason::AddressIgnored { url } => (
                    "address_unmatched",
                    format!(
                        "the tool showed only an address that does not match `url_pattern` in its provider file: {}",
                        short(url)
                    ),
                ),
                PromptReason::Answered { question } => (
                    "answer_not_taken",
                    format!(
                        "the tool still shows {question:?} after it was answered; its last line: {last}"
                    ),
                ),
            }
        }
        Observation::QuestionAnswered { question, again: false } => {
            ("question_answered", format!("the tool asked {question:?}, and it was answered"))
        }
        Observation::QuestionAnswered { question, again: true } => (
            "question_answered_again",
            format!(
                "the tool still asked {question:?} after it was answered, so it was answered again"
            ),
        ),
        Observation::AddressIgnored { url } => {
            let unmatched =
                "the tool showed an address that does not match `url_pattern` in its provider file";
            ("address_ignored", format!("{unmatched}: {}", short(url)))
        }
        Observation::CodeEntered => ("code_entered", "the code was typed into the tool".to_owned()),
        Observation::CodeReplaced => {
            ("code_replaced", "a newer code replaced one that had not been typed yet".to_owned())
        }
        _ => return None,
    })
}

fn cause(detail: &Option<String>) -> &str {
    detail.as_deref().unwrap_or("the cause is not known")
}

#[cfg(test)]
mod tests {
    use anteroom_session::ProcessExit;

    use super::*;

    #[test]
    fn the_way_to_a_host_is_reported_with_the_session_s_id() {
        let session = SessionId::generate();
        let says = |host: &str, remedy| host_needed(host, "acme", remedy, session);
        let said = says("acme.okta.example:8443", Remedy::ListOrAllow);
        let command = format!("`anteroom egress allow {session} acme.okta.example:8443`");
        assert!(
            said.contains(&command) && said.contains("add \"acme.okta.example:8443\""),
            "{said}"
        );
        for (remedy, reason) in [
            (Remedy::NameAndMap, "is an address"),
            (Remedy::ListAndMap, "a private network"),
            (Remedy::Map, FORBIDDEN_ADDRESS),
        ] {
            let said = says("adfs.corp.local", remedy);
            assert!(said.contains(reason) && said.contains("[[egress.map]]"), "{said}");
            assert!(!said.contains("egress allow") && !said.contains("not allowed by"), "{said}");
        }
    }

    #[test]
    fn a_guest_that_was_killed_did_not_power_off() {
        let says = |exit| of_observation(&Observation::GuestNotPoweredOff { exit }).unwrap();
        let (kind, said) = says(Some(ProcessExit::Signalled { signal: 9 }));
        assert_eq!(kind, "guest_not_powered_off");
        let killed = "the sandbox's process was killed by signal 9 (SIGKILL)";
        assert!(said.ends_with(killed), "{said}");
        assert!(says(None).1.contains("its time for that was over"));
    }

    #[test]
    fn one_file_was_and_two_files_were_put_in_place() {
        let says = |count| of_observation(&Observation::FilesInjected { count }).unwrap().1;
        assert_eq!(says(1), "1 file was copied into the sandbox and verified");
        assert_eq!(says(2), "2 files were copied into the sandbox and verified");
    }
}
