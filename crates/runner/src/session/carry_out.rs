//! What a sign-in's machine wants, carried out.

use anteroom_guest_protocol::HostMessage;
use anteroom_runner_protocol::RunnerMessage;
use anteroom_session::{EndReason, Observation};
use anteroom_sign_in::{End, Output};

use super::attend::Attended;
use super::step;

impl Attended<'_, '_> {
    /// Carries all of it out, in order.
    ///
    /// # Errors
    /// With the end of the sign-in, when it is over or the guest does not listen.
    pub(super) async fn carry_out(&mut self, outputs: Vec<Output>) -> Result<(), End> {
        for output in outputs {
            fail_point_before(&output)?;
            self.carry_out_one(output).await?;
        }
        Ok(())
    }

    async fn carry_out_one(&mut self, output: Output) -> Result<(), End> {
        let sender = self.session.sender;
        match output {
            // If it does not arrive the guest is killed a moment later all the same.
            Output::Say(message @ HostMessage::AcknowledgeCredential {}) => {
                let _ = self.guest.say(&message).await;
            }
            Output::Say(message) => self.guest.say(&message).await?,
            Output::Report(observation) => sender.observed(observation).await,
            Output::Type(keys) => self.terminal.type_keys(keys),
            Output::Log { service, stream, line } => {
                self.session.write_log(&service, stream, &line);
            }
            Output::ShowCursor(image) => self.picture.media.cursor(image).await,
            Output::Allow(destination) => {
                // The machine asks for none that the gate refuses.
                if let Err(refused) = self.gate.allow(&destination) {
                    tracing::warn!("{destination} is not allowed: {refused}");
                }
            }
            Output::CloseEgress => self.is_egress_open.set(false),
            Output::CodeAnswered { request, result } => {
                let result = result.map_err(|refused| refused.to_string());
                sender.say(RunnerMessage::CodeAnswered { request, result }).await;
            }
            Output::HostAnswered { request, result } => {
                sender.say(RunnerMessage::HostAnswered { request, result }).await;
            }
            Output::End(end) => return Err(end),
        }
        Ok(())
    }
}

/// The step of a sign-in that ends with this output: where tests may let it fail.
fn fail_point_before(output: &Output) -> Result<(), EndReason> {
    match output {
        Output::Say(HostMessage::TurnBegins {}) => step("capture.sign_in_url"),
        Output::CloseEgress => step("capture.found"),
        Output::Report(Observation::CredentialSealed { .. }) => step("capture.sealed"),
        Output::Say(HostMessage::AcknowledgeCredential {}) => step("capture.acknowledged"),
        _ => Ok(()),
    }
}
