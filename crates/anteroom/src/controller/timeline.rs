//! What happened, in words: the timeline's entries.

use anteroom_session::{
    Accelerator, Asks, Boundaries, Confined, Effect, EgressVerdict, Event, Explanation,
    Observation, Prompt, Remedy, SessionId, View, Viewer,
};

use crate::counted::counted;

/// Where the tool waits for the person.
const SANDBOX_READY: &str = "the room is ready; the tool is started when the person comes";

/// Kind and sentence of an event, if it belongs in the timeline.
pub fn of_event(event: &Event, session: SessionId) -> Option<(&'static str, String)> {
    match event {
        Event::RunnerStarted => Some(("runner_started", "the session's runner started".to_owned())),
        Event::Observed(Observation::HostNeeded { host, provider, remedy }) => {
            Some(("host_needed", host_needed(host, provider, *remedy, session)))
        }
        Event::Observed(observation) => of_observation(observation),
        Event::CredentialStored => {
            Some(("credential_stored", "the sealed credential was stored".to_owned()))
        }
        Event::CredentialNotStored { cause } => Some((
            "credential_not_stored",
            format!("the sealed credential could not be stored: {cause}"),
        )),
        Event::TornDown { leftovers } if leftovers.is_empty() => Some((
            "torn_down",
            "everything of the session is gone; looking found nothing left".to_owned(),
        )),
        Event::TornDown { leftovers } => {
            let things = counted(leftovers.len(), "thing", "things");
            Some(("torn_down", format!("teardown left {things} behind")))
        }
        Event::FoundByReconciliation => {
            Some(("found_unfinished", "a new controller found the session unfinished".to_owned()))
        }
        Event::LinkMade { generation, by } => Some((
            "link_made",
            format!(
                "link {generation} was made by {by}; the earlier ones were revoked, and what they opened was closed"
            ),
        )),
        Event::LinksRevoked { by } => Some((
            "links_revoked",
            format!("all links were revoked by {by}, and what they opened was closed"),
        )),
        Event::Opened { view, viewer } => Some(of_view(*view, viewer)),
        // These end the session, have the tool started, or mean nothing; the first two have entries of
        // their own.
        Event::RunnerExited(_)
        | Event::RunnerSilent { .. }
        | Event::StateNotStored { .. }
        | Event::EndRequested(_)
        | Event::StartRequested { .. }
        | Event::Heartbeat
        | Event::Tick => None,
    }
}

/// Kind and sentence of what is done, where the event that it is done for says less.
pub fn of_effect(effect: &Effect) -> Option<(&'static str, String)> {
    match effect {
        Effect::StartTool => {
            Some(("end_user_came", "the person is there; the tool is being started".to_owned()))
        }
        Effect::StartRunner
        | Effect::StoreCredential { .. }
        | Effect::AcknowledgeCredential
        | Effect::TearDown => None,
    }
}

fn of_view(view: View, viewer: &Viewer) -> (&'static str, String) {
    match view {
        View::Link => ("link_opened", format!("{viewer} was opened")),
        View::Picture => ("viewer_joined", format!("a viewer joined, by {viewer}")),
        View::Terminal => ("terminal_opened", format!("the terminal was opened, by {viewer}")),
        View::Vnc => ("vnc_opened", format!("the desktop was opened by VNC, by {viewer}")),
    }
}

/// What of a room an event says was opened, and by whom.
pub fn visit(event: &Event) -> Option<(View, Viewer)> {
    match event {
        Event::Opened { view, viewer } => Some((*view, viewer.clone())),
        Event::Observed(Observation::ViewerJoined { viewer }) => {
            Some((View::Picture, viewer.clone()))
        }
        _ => None,
    }
}

fn what_runs(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "a virtual machine on KVM",
        Accelerator::Tcg => "an emulated virtual machine",
        Accelerator::None => "the agent on this host, with no isolation",
    }
}

/// What holds the session's processes, and what does not.
fn held(confined: &Confined) -> String {
    let Confined { sandbox, runner, missing } = confined;
    let of = |what: &str, held: &Boundaries| {
        let mut by = vec![format!("user {}", held.uid)];
        if !held.has_capabilities {
            by.push("no capabilities".to_owned());
        }
        if !held.namespaces.is_empty() {
            let names: Vec<_> = held.namespaces.iter().map(|name| name.as_str()).collect();
            let word = if names.len() == 1 { "namespace" } else { "namespaces" };
            by.push(format!("its own {} {word}", names.join(", ")));
        }
        if held.cgroup.is_some() {
            by.push("its own cgroup".to_owned());
        }
        if held.filters_system_calls {
            by.push("filtered system calls".to_owned());
        }
        format!("{what} is held by: {}", by.join(", "))
    };
    let mut said = format!("{}; {}", of("the room's process", sandbox), of("the runner", runner));
    if !missing.is_empty() {
        said.push_str(&format!("; this machine does not offer {}", missing.join(", ")));
    }
    said
}

fn of_observation(observation: &Observation) -> Option<(&'static str, String)> {
    Some(match observation {
        Observation::VmStarted { driver, accelerator, .. } => {
            ("vm_started", format!("{driver} started {}", what_runs(*accelerator)))
        }
        Observation::Confined(confined) => ("confined", held(confined)),
        Observation::AgentConnected { agent_version, kernel } => {
            ("agent_connected", format!("the agent {agent_version} answered from Linux {kernel}"))
        }
        Observation::FilesInjected { count: 0 } => return None,
        Observation::FilesInjected { count } => {
            let files = counted(*count, "file was", "files were");
            ("files_injected", format!("{files} put in place and confirmed"))
        }
        Observation::ServiceReady { service } => ("service_ready", format!("{service} is ready")),
        Observation::ServiceExited { explanation, then, .. } => {
            ("service_exited", format!("{}; {then}", explanation.sentence))
        }
        Observation::ServiceGivenUp { explanation, .. } => {
            ("service_given_up", explanation.sentence.clone())
        }
        Observation::ChildCrashed { explanation, .. } => {
            ("child_crashed", explanation.sentence.clone())
        }
        Observation::SandboxReady => ("sandbox_ready", SANDBOX_READY.to_owned()),
        Observation::SignInAwaited { .. }
        | Observation::QuestionAnswered { .. }
        | Observation::AddressIgnored { .. }
        | Observation::CodeEntered
        | Observation::CodeReplaced => return of_terminal(observation),
        Observation::EndUserNotified { says } => ("end_user_notified", says.clone()),
        Observation::CredentialVerified { said } => {
            ("credential_verified", format!("the tool itself calls it signed in: {said}"))
        }
        Observation::SignInPageOpened => {
            ("sign_in_page_opened", "the browser opened the sign-in page".to_owned())
        }
        Observation::FirstFrameSent => {
            ("first_frame_sent", "the first picture was sent to the viewer".to_owned())
        }
        Observation::ViewerJoined { viewer } => of_view(View::Picture, viewer),
        Observation::ViewerLeft => ("viewer_left", "the viewer left".to_owned()),
        Observation::CredentialFound => {
            ("credential_found", "the tool has its credential".to_owned())
        }
        Observation::CredentialSealed { .. } => {
            ("credential_sealed", "the credential was sealed in the guest".to_owned())
        }
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
                ("host_refused", format!("{host}:{port} was refused: it leads inside"))
            }
            EgressVerdict::Failed => {
                ("host_failed", format!("{host}:{port} could not be reached: {}", cause(detail)))
            }
        },
        Observation::HostUnreachable { host, cause } => (
            "host_unreachable",
            format!(
                "the room cannot reach {host} ({cause}); if the sign-in does not go on, start it \
                 again in some minutes"
            ),
        ),
        Observation::HostAllowed { host } => {
            ("host_allowed", format!("the operator allowed {host} for this session"))
        }
        Observation::HostReached { host } => {
            ("host_reached", format!("{host} was reached after all"))
        }
        Observation::GuestPoweredOff => {
            ("guest_powered_off", "the guest was told and powered off".to_owned())
        }
        // The second needs the session's id.
        Observation::EndUserActive | Observation::HostNeeded { .. } | Observation::Failed(_) => {
            return None;
        }
    })
}

/// Where a page goes on that is refused, and what the operator can do.
fn host_needed(host: &str, provider: &str, remedy: Remedy, session: SessionId) -> String {
    let add = format!("add {host:?} to allow in [egress] of its provider file");
    let (what, to_do) = match remedy {
        Remedy::List => {
            (format!("is not on the list of {provider}"), format!("to allow it, {add}"))
        }
        Remedy::ListOrAllow => (
            format!("is not on the list of {provider}"),
            format!("to allow it, {add}, or only now: `anteroom egress allow {session} {host}`"),
        ),
        Remedy::NameAndMap => (
            "is an address: hosts are reached by their names alone".to_owned(),
            format!(
                "name the host in allow of {provider}, and lead it there with [[egress.map]] if it has \
                 no name in DNS"
            ),
        ),
        Remedy::ListAndMap => (
            "is a name of a network's own, and refused".to_owned(),
            format!(
                "to reach it, name it in allow of {provider} and lead it to an address with [[egress.map]]"
            ),
        ),
        Remedy::Map => (
            "is allowed, and whose name leads where no room may go".to_owned(),
            format!(
                "to reach it all the same, lead it to its address with [[egress.map]] in the file of {provider}"
            ),
        ),
    };
    format!("the page goes on at {host}, which {what}; {to_do}")
}

/// What the tool's terminal shows.
fn of_terminal(observation: &Observation) -> Option<(&'static str, String)> {
    Some(match observation {
        Observation::SignInAwaited { prompt: Prompt::Page { url, code } } => {
            let code = if code.is_some() { ", with a code" } else { "" };
            ("sign_in_url", format!("the tool asks to sign in at {}{code}", host_of(url)))
        }
        Observation::SignInAwaited { prompt: Prompt::Terminal { screen, asks } } => {
            let last = screen.last().map(String::as_str).unwrap_or_default();
            match asks {
                Asks::Unknown => {
                    let words = "the tool shows what its provider file does not know";
                    ("unknown_prompt", format!("{words}, and waits; its last line: {last}"))
                }
                Asks::AddressIgnored { url } => (
                    "address_unmatched",
                    format!(
                        "the tool gave no address that url_pattern of its provider file matches; it names {}",
                        short(url)
                    ),
                ),
                Asks::Answered { question } => (
                    "answer_not_taken",
                    format!(
                        "{question:?} was answered and stands there all the same; its last line: {last}"
                    ),
                ),
            }
        }
        Observation::QuestionAnswered { question, again: false } => {
            ("question_answered", format!("the tool asked {question:?} and was answered"))
        }
        Observation::QuestionAnswered { question, again: true } => (
            "question_answered_again",
            format!("{question:?} stood on as if nobody had answered; it was answered once more"),
        ),
        Observation::AddressIgnored { url } => {
            let words =
                "the tool names an address that url_pattern of its provider file does not match";
            ("address_ignored", format!("{words}: {}", short(url)))
        }
        Observation::CodeEntered => ("code_entered", "the code was typed into the tool".to_owned()),
        Observation::CodeReplaced => {
            let words = "a newer code took the place of one that was not typed yet";
            ("code_replaced", words.to_owned())
        }
        _ => return None,
    })
}

fn cause(detail: &Option<String>) -> &str {
    detail.as_deref().unwrap_or("no cause is known")
}

/// As much of an address as says which it is.
pub fn short(url: &str) -> String {
    url.chars().take(120).collect()
}

/// The host name of a URL; its query may hold what does not belong in a log.
pub fn host_of(url: &str) -> String {
    url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
}

/// Why, of an event that tells of a death.
pub fn explanation_of(event: &Event) -> Option<&Explanation> {
    match event {
        Event::Observed(
            Observation::ServiceExited { explanation, .. }
            | Observation::ServiceGivenUp { explanation, .. }
            | Observation::ChildCrashed { explanation, .. },
        ) => Some(explanation),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_to_a_host_is_reported_with_the_session_s_id() {
        let session = SessionId::generate();
        let says = |host: &str, remedy| host_needed(host, "acme", remedy, session);
        let said = says("acme.okta.example:8443", Remedy::ListOrAllow);
        let command = format!("`anteroom egress allow {session} acme.okta.example:8443`");
        assert!(
            said.contains(&command) && said.contains("add \"acme.okta.example:8443\""),
            "{said}"
        );
        for (remedy, words) in [
            (Remedy::NameAndMap, "is an address"),
            (Remedy::ListAndMap, "a network's own"),
            (Remedy::Map, "whose name leads where no room may go"),
        ] {
            let said = says("adfs.corp.local", remedy);
            assert!(said.contains(words) && said.contains("[[egress.map]]"), "{said}");
            assert!(!said.contains("egress allow") && !said.contains("not on the list"), "{said}");
        }
    }

    #[test]
    fn one_file_was_and_two_files_were_put_in_place() {
        let says = |count| of_observation(&Observation::FilesInjected { count }).unwrap().1;
        assert_eq!(says(1), "1 file was put in place and confirmed");
        assert_eq!(says(2), "2 files were put in place and confirmed");
    }
}
