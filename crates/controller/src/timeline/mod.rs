//! What the timeline's entries say.

mod observations;

use anteroom_session::counted::counted;
use anteroom_session::{
    AccessGrant, Effect, Event, Explanation, Observation, SessionId, View, Waited,
};

use observations::{host_needed, of_observation};

/// Kind and sentence of an event, if it belongs in the timeline. `closes` is whether links have opened
/// views that are closed when they are revoked.
pub fn of_event(event: &Event, session: SessionId, closes: bool) -> Option<(&'static str, String)> {
    let closed = if closes { ", and the views that they had opened are closed" } else { "" };
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
            "the sandbox was torn down; a check found nothing left of it".to_owned(),
        )),
        Event::TornDown { leftovers } => {
            let things = counted(leftovers.len(), "thing", "things");
            Some((
                "torn_down",
                format!("the sandbox was torn down; a check found {things} left behind"),
            ))
        }
        Event::FoundByReconciliation => Some((
            "found_unfinished",
            "the controller was restarted and found the session unfinished".to_owned(),
        )),
        Event::LinkMade { generation, by } => Some((
            "link_created",
            format!("{by} created link {generation}; earlier links were revoked{closed}"),
        )),
        Event::LinksRevoked { by } => {
            Some(("links_revoked", format!("{by} revoked all links{closed}")))
        }
        Event::Opened { view, viewer } => Some(of_view(*view, viewer)),
        Event::HostAllowed { host, by } => {
            Some(("host_allowed", format!("{by} allowed {host} for this session")))
        }
        // These end the session, have the tool started, or mean nothing; the first two have entries of
        // their own.
        Event::RunnerExited(_)
        | Event::RunnerSilent { .. }
        | Event::NodeLost
        | Event::StateNotStored { .. }
        | Event::EndRequested(_)
        | Event::ToolStartRequested { .. }
        | Event::Heartbeat
        | Event::Tick => None,
    }
}

/// Kind and sentence of an effect, where its event has no entry of its own.
pub fn of_effect(effect: &Effect) -> Option<(&'static str, String)> {
    match effect {
        Effect::StartTool => {
            Some(("end_user_came", "the end user arrived; the tool is being started".to_owned()))
        }
        Effect::StartRunner
        | Effect::StoreCredential { .. }
        | Effect::AcknowledgeCredential
        | Effect::TearDown => None,
    }
}

/// Kind and sentence of a view that somebody opened.
pub fn of_view(view: View, viewer: &AccessGrant) -> (&'static str, String) {
    match view {
        View::Link => ("link_opened", format!("{viewer} was opened")),
        View::Picture => ("viewer_joined", format!("a viewer connected with {viewer}")),
        View::Terminal => ("terminal_opened", format!("the terminal was opened with {viewer}")),
        View::Vnc => ("vnc_opened", format!("the desktop was opened over VNC with {viewer}")),
    }
}

/// The view of a sandbox that an event opened, and by whom.
pub fn visit(event: &Event) -> Option<(View, AccessGrant)> {
    match event {
        Event::Opened { view, viewer } => Some((*view, viewer.clone())),
        Event::Observed(Observation::ViewerJoined { viewer }) => {
            Some((View::Picture, viewer.clone()))
        }
        _ => None,
    }
}

/// The beginning of an address, enough to recognise it.
pub fn short(url: &str) -> String {
    url.chars().take(120).collect()
}

/// The host name of a URL; its query may hold what does not belong in a log.
pub fn host_of(url: &str) -> String {
    url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default()
}

/// The explanation of an event that reports a death.
pub fn explanation_of(event: &Event) -> Option<&Explanation> {
    match event {
        Event::Observed(
            Observation::ServiceExited { explanation, .. }
            | Observation::ServiceGivenUp { explanation, .. }
            | Observation::ChildDied { explanation, .. },
        ) => Some(explanation),
        _ => None,
    }
}

/// How long a clone's start waited for others, of the event that ends it.
pub fn waited_of(event: &Event) -> Option<Waited> {
    match event {
        Event::Observed(Observation::AgentConnected { waited, .. }) => *waited,
        _ => None,
    }
}
