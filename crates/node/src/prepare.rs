//! What a session needs before it can run on this machine, and its runner's configuration.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anteroom_confine::{Confinement, SessionUser};
use anteroom_guest_link::chain;
use anteroom_guest_protocol::{ScreenSize, ServiceSpec};
use anteroom_guest_session::template::Wanted;
use anteroom_guest_session::{CloneOf, DriverConfig, SandboxConfig, VmConfig, VmFiles};
use anteroom_image::{Image, ImageSummary};
use anteroom_node_protocol::{
    NotPrepared, Reports, SandboxQuery, SignInConfig, StartSession, may_be_clone,
};
use anteroom_runner_protocol::{SessionConfig, sandbox_name};
use anteroom_session::{EndReason, SessionId};
use anteroom_vm::PageSet;

use super::error::LocalNodeError;
use super::measuring::Started;
use super::pool::{Claimed, Waiting};
use super::process::Runner;
use super::settings::{DriverChoice, VmChoice};
use super::templates::Template;
use super::users::Lease;
use super::{LocalNode, Stage};

/// How a sandbox is booted, and what runs in it beside what every sandbox has.
pub struct Boots {
    driver: DriverConfig,
    services: Vec<ServiceSpec>,
}

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
    /// Leases a user and creates the log folder, in this order.
    pub(super) async fn reserve(
        &self,
        session: SessionId,
        Boots { driver, services }: Boots,
    ) -> Result<(PreparedSession, Option<Lease>), NotPrepared> {
        let lease = self.lease_user(session).await?;
        let log_dir =
            self.logs.create(session).map_err(|error| NotPrepared::NoLogFolder(chain(&error)))?;
        let user = lease.as_ref().map(Lease::user);
        let confinement = Confinement { user, host: self.settings.host.clone() };
        Ok((PreparedSession { driver, services, confinement, log_dir }, lease))
    }

    /// The user of the session's processes, where this machine offers one.
    pub(super) async fn lease_user(
        &self,
        session: SessionId,
    ) -> Result<Option<Lease>, NotPrepared> {
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

    /// How a session's sandbox is booted; its image is there, and verified.
    pub(super) fn boots(&self, session: SessionId, image: &str) -> Result<Boots, NotPrepared> {
        let settings = &self.settings;
        match &settings.driver {
            DriverChoice::Vm(vm) => {
                let image = anteroom_image::find(&settings.images_dir, image)
                    .map_err(|error| NotPrepared::NoImage(error.to_string()))?;
                vm.check_verified(&image.dir)
                    .map_err(|refusal| NotPrepared::ImageNotVerified(refusal.to_string()))?;
                let services = self.services_of(&image);
                let driver = DriverConfig::Vm(self.vm_config(vm, image.dir, None));
                Ok(Boots { driver, services })
            }
            DriverChoice::Host { agent, .. } => {
                let runtime_dir = sandbox_name(session).runtime_dir();
                let driver = DriverConfig::Host { agent: agent.clone(), runtime_dir };
                Ok(Boots { driver, services: settings.services.clone() })
            }
        }
    }

    fn services_of(&self, image: &ImageSummary) -> Vec<ServiceSpec> {
        self.settings.services.iter().chain(&image.services).cloned().collect()
    }

    fn vm_config(&self, vm: &VmChoice, image_dir: PathBuf, clone_of: Option<CloneOf>) -> VmConfig {
        VmConfig {
            image_dir,
            memory_mib: vm.memory_mib,
            vcpus: vm.vcpus,
            vmm: vm.vmm.clone(),
            clone_of,
        }
    }

    /// Begins to load the templates that sign-ins will ask for.
    pub(super) fn load_templates(&self) {
        let Some(templates) = &self.settings.templates else { return };
        for (image, authorities) in &templates.usual {
            self.template_for(image, authorities);
        }
    }

    /// The template for desktops of the usual size that this image's VMs have here, once it is loaded.
    pub(super) fn template_for(&self, image: &str, extra_ca_pem: &str) -> Option<Arc<Template>> {
        let screen = self.settings.templates.as_ref()?.screen;
        // Whatever is wrong with the image is reported when a session is prepared.
        let image = anteroom_image::find(&self.settings.images_dir, image).ok()?;
        self.template_of(&image.dir, &self.services_of(&image), screen, extra_ca_pem)
    }

    /// The template of an image's VMs here, once it is loaded.
    fn template_of(
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
        self.templates.of(image_dir, wanted)
    }

    /// A clone that waits for such a session, if there is one.
    pub(super) fn claim(
        &self,
        sandbox: &SandboxQuery,
        screen: ScreenSize,
        boots: &Boots,
    ) -> Option<Waiting> {
        let DriverConfig::Vm(vm) = &boots.driver else { return None };
        if !sandbox.may_be_clone {
            return None;
        }
        let authorities = &sandbox.extra_ca_pem;
        let template = self.template_of(&vm.image_dir, &boots.services, screen, authorities)?;
        let Claimed { clone, stopped } = self.pool.claim(&template);
        for (stopped, process) in stopped {
            self.end_stopped(stopped, &process);
        }
        clone
    }

    /// A clone of a template that is to wait, as its runner gets it; `None` where no VM is booted.
    pub(super) fn sandbox_of(
        &self,
        template: &Template,
        session: SessionId,
        confinement: Confinement,
        log_dir: PathBuf,
    ) -> Option<SandboxConfig> {
        let DriverChoice::Vm(vm) = &self.settings.driver else { return None };
        let image_dir = template.image_dir.clone();
        let clone_of = clone_of(template, template.recorded.pages());
        let driver = DriverConfig::Vm(self.vm_config(vm, image_dir, Some(clone_of)));
        Some(SandboxConfig {
            name: sandbox_name(session),
            driver,
            confinement,
            log_dir,
            screen: template.screen,
            services: template.services.clone(),
        })
    }

    /// The image that a session's VM boots, open and checked. Its session may have waited long since it was
    /// prepared. A clone that waited has its own.
    pub(super) async fn image_for(
        &self,
        session: SessionId,
    ) -> Result<Option<Arc<Image>>, EndReason> {
        let dir = self.with_sessions(|sessions| match sessions.get(&session) {
            Some(Stage::Prepared(prepared)) => match &prepared.driver {
                DriverConfig::Vm(vm) => Some(vm.image_dir.clone()),
                DriverConfig::Host { .. } => None,
            },
            Some(Stage::Claimed(_) | Stage::Running(_)) | None => None,
        });
        match dir {
            Some(dir) => self.images.open_for_session(dir).await.map(Some),
            None => Ok(None),
        }
    }

    /// Starts a session that was prepared; `image` is what its VM boots.
    pub(super) fn start_runner(
        &self,
        start: StartSession,
        image: Option<Arc<Image>>,
    ) -> Result<(Runner, Reports), LocalNodeError> {
        let StartSession { sign_in, screen } = start;
        let session = sign_in.session;
        let stage = self.with_sessions(|sessions| match sessions.remove(&session) {
            Some(running @ Stage::Running(_)) => {
                sessions.insert(session, running);
                None
            }
            prepared => prepared,
        });
        let (runner, reports) = match stage {
            Some(Stage::Claimed(waiting)) => {
                let template = Arc::clone(&waiting.template);
                self.measured_as(session, waiting.record.user, Some(&template));
                let (runner, reports) = waiting.hand_over();
                // The session's own record has it now.
                self.pool.records.remove(session);
                (runner, self.watch(session, template, reports))
            }
            Some(Stage::Prepared(prepared)) => self.boot(*prepared, image, &sign_in, screen)?,
            Some(Stage::Running(_)) | None => return Err(LocalNodeError::NotPrepared),
        };
        let candidates = match self.settings.advertise.as_slice() {
            [] => vec![self.description.media],
            advertised => advertised.to_vec(),
        };
        // One that ended meanwhile is reported by its end.
        let _ = runner.begin(SessionConfig { sign_in, candidates });
        Ok((runner, reports))
    }

    /// What the session takes counts for those to come.
    fn measured_as(
        &self,
        session: SessionId,
        user: Option<SessionUser>,
        template: Option<&Arc<Template>>,
    ) {
        let template = template.map(|template| template.id.clone());
        self.measuring.started(session, Started { user, template });
    }

    /// Its reports, of which some are for its template and for what is measured of its clones.
    fn watch(&self, session: SessionId, template: Arc<Template>, reports: Reports) -> Reports {
        let measuring = self.measuring.clone();
        self.templates.watch(template, reports, move || measuring.is_used(session))
    }

    /// Starts the runner of a sandbox that is booted, or a clone that is made, for this session.
    fn boot(
        &self,
        prepared: PreparedSession,
        image: Option<Arc<Image>>,
        sign_in: &SignInConfig,
        screen: ScreenSize,
    ) -> Result<(Runner, Reports), LocalNodeError> {
        let PreparedSession { mut driver, services, confinement, log_dir } = prepared;
        let provider = &sign_in.provider;
        let template = match &mut driver {
            DriverConfig::Vm(vm) if may_be_clone(provider, &sign_in.preferences) => {
                let authorities = &provider.egress.extra_ca_pem;
                let template = self.template_of(&vm.image_dir, &services, screen, authorities);
                // Nobody has time to copy pages ahead: whoever signs in waits.
                let clone_of = |template| clone_of(template, PageSet::default());
                vm.clone_of = template.as_deref().map(clone_of);
                template
            }
            DriverConfig::Vm(_) | DriverConfig::Host { .. } => None,
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
        self.measured_as(sign_in.session, sandbox.confinement.user, template.as_ref());
        let files = match &template {
            Some(template) => Some(template.vm_files()),
            None => image.map(|image| VmFiles { image: image.files.clone(), template: None }),
        };
        let (runner, reports) =
            Runner::start(sandbox, files, media, &self.settings.runner_environment)?;
        let reports = match template {
            Some(template) => self.watch(sign_in.session, template, reports),
            None => reports,
        };
        Ok((runner, reports))
    }
}

fn clone_of(template: &Template, ahead: PageSet) -> CloneOf {
    CloneOf {
        template: template.id.clone(),
        wake_token: template.wake_token.clone(),
        picture: template.picture.clone(),
        ahead,
    }
}
