//! What all measurements of one driver share.

use std::path::{Path, PathBuf};

use anyhow::Result;

use super::unchanged::TemplateMemory;
use crate::demo::keep_logs;
use crate::identity::new_identity;
use crate::leftovers;
use crate::server::Server;
use crate::template::Template;
use xtask::shell;

/// A template, and who signs in from it.
pub struct Setting {
    /// The template.
    pub template: Template,
    /// Whom credentials are sealed to.
    pub recipient: String,
    /// What its controllers have of the template in memory.
    pub memory: TemplateMemory,
    anteroom: PathBuf,
    folder: PathBuf,
    driver: String,
    of_vms: Vec<String>,
    provider_file: String,
    before: leftovers::Before,
}

impl Setting {
    /// Makes a template by this driver, with options that `image snapshot` and `serve` share, whose browser
    /// trusts this authority.
    pub fn new(
        anteroom: &Path,
        folder: &Path,
        driver: &str,
        of_vms: Vec<String>,
        provider_file: String,
        authority_pem: &str,
    ) -> Result<Self> {
        let before = leftovers::Before::look();
        let recipient = new_identity(folder)?.recipient;
        let mut options = vec!["--driver", driver];
        options.extend(of_vms.iter().map(String::as_str));
        let template = Template::make(anteroom, folder, &options, authority_pem)?;
        Ok(Self {
            template,
            recipient,
            memory: TemplateMemory::default(),
            anteroom: anteroom.into(),
            folder: folder.into(),
            driver: driver.into(),
            of_vms,
            provider_file,
            before,
        })
    }

    /// A controller, with these further options.
    pub fn serve(&self, options: &[&str]) -> Result<Server> {
        let folder = tempfile::Builder::new().prefix("serve-").tempdir_in(&self.folder)?.keep();
        let all: Vec<&str> =
            self.of_vms.iter().map(String::as_str).chain(options.iter().copied()).collect();
        self.template.serve_by(&self.driver, &self.anteroom, &folder, &self.provider_file, &all)
    }

    /// How much is left of a session.
    pub fn leftovers(&self, session: &str) -> Result<usize> {
        let left = leftovers::of_session(session, &self.folder, &self.before)?;
        for one in &left {
            eprintln!("left over: {one}");
        }
        Ok(left.len())
    }

    /// Keeps the logs of one that failed.
    pub fn keep_logs(&self, server: &Server, session: &str, number: usize) -> Result<()> {
        let kept = shell::root().join(format!("target/demo/failed-start-{number}"));
        keep_logs(&server.state_dir().join("logs").join(session), &kept)
    }
}
