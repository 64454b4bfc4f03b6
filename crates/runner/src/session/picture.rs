//! The picture and its viewers, who may come before the guest is awake.

use anteroom_guest_link::chain;
use anteroom_media::service::{MediaEvent, MediaHandle};
use anteroom_runner_protocol::{OfferAnswer, RunnerCommand, RunnerMessage};
use anteroom_session::Observation;
use tokio::sync::mpsc;

use super::super::controller_link::ControllerSender;

/// The media service, and what happens in it.
pub(super) struct Picture {
    pub(super) media: MediaHandle,
    pub(super) events: mpsc::Receiver<MediaEvent>,
    pub(super) sender: ControllerSender,
}

impl Picture {
    /// Does what the controller wants of the picture's viewers; gives back what is not about them.
    pub(super) async fn obey(&self, command: RunnerCommand) -> Option<RunnerCommand> {
        match command {
            RunnerCommand::RevokeBefore { oldest } => self.media.revoke_before(oldest).await,
            RunnerCommand::Dismiss { ice_ufrag } => self.media.dismiss(ice_ufrag).await,
            RunnerCommand::Offer { request, sdp, viewer } => {
                let answered = self.media.offer(sdp, viewer).await;
                let answer = answered.map(|accepted| OfferAnswer {
                    sdp: accepted.answer_sdp,
                    ice_ufrag: accepted.ufrag,
                });
                let result = answer.map_err(|error| chain(&error));
                self.sender.say(RunnerMessage::OfferAnswered { request, result }).await;
            }
            other => return Some(other),
        }
        None
    }

    /// Reports what a viewer did; gives back what is not about one.
    pub(super) async fn report(&self, event: MediaEvent) -> Option<MediaEvent> {
        let observation = match event {
            MediaEvent::ViewerJoined(viewer) => Observation::ViewerJoined { viewer },
            MediaEvent::ViewerLeft => Observation::ViewerLeft,
            MediaEvent::FirstFrameSent => Observation::FirstFrameSent,
            MediaEvent::LiveFrameShown => Observation::LiveFrameShown,
            failed @ (MediaEvent::FrameSourceFailed(_) | MediaEvent::EncoderFailed(_)) => {
                return Some(failed);
            }
        };
        self.sender.observed(observation).await;
        None
    }
}
