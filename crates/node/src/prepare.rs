//! What a session needs before it can run on this machine, and its runner's configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anteroom_confine::{Confinement, SessionUser};
use anteroom_guest_link::chain;
use anteroom_guest_protocol::{ScreenSize, ServiceSpec};
use anteroom_guest_session::template::Wanted;
use anteroom_guest_session::{CloneOf, DriverConfig, SandboxConfig, VmConfig};
use anteroom_node_protocol::{NotPrepared, PrepareSession, Reports, StartSession, may_be_clone};
use anteroom_runner_protocol::{RunnerConfig, sandbox_name};
use anteroom_session::SessionId;

use super::error::LocalNodeError;
use super::measuring::Started;
use super::process::Runner;
use super::settings::DriverChoice;
use super::templates::Template;
use super::users::Lease;
use super::{LocalNode, Stage};

/// What was reserved for a session.
pub struct PreparedSession {
    driver: DriverConfig,
    services: Vec<ServiceSpec>,
    confinement: Confinement,
    log_dir: PathBuf,
}

impl PreparedSession {
    pub fn user(&self) -> Option<SessionUser> {
        self.confinement.user
    }
}

impl LocalNode {
    /// Checks the image, leases a user and creates the log folder, in this order.
    pub(super) async fn reserve(
        &self,
        PrepareSession { session, image }: PrepareSession,
    ) -> Result<(PreparedSession, Option<Lease>), NotPrepared> {
        let (driver, services) = self.driver_config(session, &image)?;
        let lease = self.lease_user(session).await?;
        let log_dir =
            self.logs.create(session).map_err(|error| NotPrepared::NoLogFolder(chain(&error)))?;
        let user = lease.as_ref().map(Lease::user);
        let confinement = Confinement { user, host: self.settings.host.clone() };
        Ok((PreparedSession { driver, services, confinement, log_dir }, lease))
    }

    /// The user of the session's processes, where this machine offers one.
    async fn lease_user(&self, session: SessionId) -> Result<Option<Lease>, NotPrepared> {
        if !self.settings.host.users.is_available() {
            return Ok(None);
        }
        let (users, sandbox) = (self.users.clone(), sandbox_name(session));
        // It looks at every process of the machine.
        let leased = tokio::task::spawn_blocking(move || users.lease(sandbox)).await;
        let leased = leased.map_err(|error| NotPrepared::Failed(error.to_string()))?;
        leased.map(Some).ok_or_else(|| {
            let range = SessionUser::RANGE;
            NotPrepared::Failed(format!(
                "every user id from {} to {} is in use on this machine",
                range.start(),
                range.end()
            ))
        })
    }

    /// How the sandbox is booted, and what runs in it beside what every sandbox has.
    fn driver_config(
        &self,
        session: SessionId,
        image: &str,
    ) -> Result<(DriverConfig, Vec<ServiceSpec>), NotPrepared> {
        let settings = &self.settings;
        let mut services = settings.services.clone();
        match &settings.driver {
            DriverChoice::Vm(vm) => {
                let image = anteroom_image::find(&settings.images_dir, image)
                    .map_err(|error| NotPrepared::NoImage(error.to_string()))?;
                vm.check_verified(&image.dir)
                    .map_err(|refusal| NotPrepared::ImageNotVerified(refusal.to_string()))?;
                services.extend(image.services);
                let config = VmConfig {
                    image_dir: image.dir,
                    cache_dir: settings.cache_dir.clone(),
                    memory_mib: vm.memory_mib,
                    vcpus: vm.vcpus,
                    vmm: vm.vmm.clone(),
                    clone_of: None,
                };
                Ok((DriverConfig::Vm(config), services))
            }
            DriverChoice::Host { agent } => {
                let runtime_dir = sandbox_name(session).runtime_dir();
                Ok((DriverConfig::Host { agent: agent.clone(), runtime_dir }, services))
            }
        }
    }

    /// Begins to load the templates that sign-ins will ask for.
    pub(super) fn load_templates(&self) {
        let Some(templates) = &self.settings.templates else { return };
        let images = anteroom_image::list(&self.settings.images_dir);
        for image in images.iter().filter(|image| image.is_default) {
            let services = self.settings.services.iter().chain(&image.services).cloned();
            let services: Vec<ServiceSpec> = services.collect();
            self.template_of(&image.dir, &services, templates.screen, "");
        }
    }

    /// The template of an image's VMs here, once it is loaded.
    pub(super) fn template_of(
        &self,
        image_dir: &Path,
        services: &[ServiceSpec],
        screen: ScreenSize,
        extra_ca_pem: &str,
    ) -> Option<Arc<Template>> {
        let DriverChoice::Vm(vm) = &self.settings.driver else { return None };
        // An image's folder is called by its digest.
        let image = image_dir.file_name()?.to_string_lossy().into_owned();
        let (vmm, memory_mib, vcpus) = (&vm.vmm, vm.memory_mib, vm.vcpus);
        let wanted =
            Wanted { image: &image, vmm, memory_mib, vcpus, screen, services, extra_ca_pem };
        self.templates.of(image_dir, extra_ca_pem, |host| wanted.on(host))
    }

    /// Starts the runner of a session that was prepared.
    pub(super) fn start_runner(
        &self,
        start: StartSession,
    ) -> Result<(Runner, Reports), LocalNodeError> {
        let StartSession { sign_in, screen } = start;
        let prepared = self.with_sessions(|sessions| match sessions.remove(&sign_in.session) {
            Some(Stage::Prepared(prepared)) => Some(*prepared),
            Some(other) => {
                sessions.insert(sign_in.session, other);
                None
            }
            None => None,
        });
        let PreparedSession { mut driver, services, confinement, log_dir } =
            prepared.ok_or(LocalNodeError::NotPrepared)?;
        let template = match &mut driver {
            DriverConfig::Vm(vm) if may_be_clone(&sign_in.provider, &sign_in.preferences) => {
                let template = self.template_of(
                    &vm.image_dir,
                    &services,
                    screen,
                    &sign_in.provider.egress.extra_ca_pem,
                );
                vm.clone_of = template.as_ref().map(|template| CloneOf {
                    template: template.id.clone(),
                    wake_token: template.wake_token.clone(),
                });
                template
            }
            DriverConfig::Vm(_) | DriverConfig::Host { .. } => None,
        };
        let candidates = match self.settings.advertise.as_slice() {
            [] => vec![self.description.media],
            advertised => advertised.to_vec(),
        };
        let media = self.demux.add_session(sign_in.session)?;
        let sandbox = SandboxConfig {
            name: sandbox_name(sign_in.session),
            driver,
            confinement,
            log_dir,
            screen,
            services,
        };
        let started = Started {
            user: sandbox.confinement.user,
            template: template.as_ref().map(|template| template.id.clone()),
        };
        self.measuring.started(sign_in.session, started);
        let config = RunnerConfig { sandbox, sign_in, candidates };
        let files = template.as_ref().map(|template| template.files.clone());
        let (runner, reports) =
            Runner::start(config, files, media, &self.settings.runner_environment)?;
        let reports = match template {
            Some(template) => self.templates.watch(template, reports),
            None => reports,
        };
        Ok((runner, reports))
    }
}
