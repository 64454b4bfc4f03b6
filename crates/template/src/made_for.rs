//! What a template was made for, and how that differs from what is there.

use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// Bytes of the digest that a template is named by.
const ID_BYTES: usize = 8;

/// All that has to be the same in whoever uses a template as in whoever made it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateFor {
    /// The image's recipe digest.
    pub image: String,
    /// Lower-case hexadecimal SHA-256 of the agent that the guest runs.
    pub agent_sha256: String,
    /// Name and version of the VMM, as `QEMU 7.2.19`.
    pub vmm: String,
    /// The driver's name, as `qemu`.
    pub driver: String,
    /// What runs the guest's code, as `kvm`.
    pub accelerator: String,
    /// The guest's processor: CPU profile and model.
    pub cpu: String,
    /// The guest's memory in MiB.
    pub memory_mib: u32,
    /// How many processors the guest has.
    pub vcpus: u8,
    /// In pixels.
    pub screen_width: u16,
    /// In pixels.
    pub screen_height: u16,
    /// Lower-case hexadecimal SHA-256 of the services that run in the guest.
    pub services_sha256: String,
    /// The same of the extra authorities (PEM) that its browser trusts.
    pub authorities_sha256: String,
    /// The machine's processor: a guest may have seen what it is.
    pub host_cpu: String,
}

/// A field in which a template differs from what is there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The field, as a sentence names it.
    pub what: &'static str,
    /// As the template has it, with its unit.
    pub made_for: String,
    /// As it is here, with its unit.
    pub here: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, made_for, here } = self;
        write!(f, "made for {what} {made_for}, and here it is {here}")
    }
}

impl TemplateFor {
    /// The name of its template's folder: the first 16 hexadecimal digits of the SHA-256 of its JSON,
    /// which has the fields in the order of this type and no white space.
    #[must_use]
    pub fn id(&self) -> String {
        let json = serde_json::to_vec(self).expect("strings and numbers have a JSON");
        hex::encode(&Sha256::digest(json)[..ID_BYTES])
    }

    /// The fields in which a template that was made for `self` differs from what is `here`, in the
    /// order of this type.
    #[must_use]
    pub fn differences(&self, here: &Self) -> Vec<Difference> {
        self.fields()
            .into_iter()
            .zip(here.fields())
            .filter(|(made_for, here)| made_for != here)
            .map(|((what, made_for), (_, here))| Difference { what, made_for, here })
            .collect()
    }

    fn fields(&self) -> [(&'static str, String); 13] {
        // Without `..`, so that a new field is not forgotten here.
        let Self {
            image,
            agent_sha256,
            vmm,
            driver,
            accelerator,
            cpu,
            memory_mib,
            vcpus,
            screen_width,
            screen_height,
            services_sha256,
            authorities_sha256,
            host_cpu,
        } = self;
        [
            ("the image", image.clone()),
            ("the agent with SHA-256", agent_sha256.clone()),
            ("the VMM", vmm.clone()),
            ("the driver", driver.clone()),
            ("the accelerator", accelerator.clone()),
            ("the guest's processor", cpu.clone()),
            ("a memory of", format!("{memory_mib} MiB")),
            ("a number of processors of", vcpus.to_string()),
            ("a screen width of", format!("{screen_width} pixels")),
            ("a screen height of", format!("{screen_height} pixels")),
            ("services with SHA-256", services_sha256.clone()),
            ("authorities with SHA-256", authorities_sha256.clone()),
            ("this machine's processor", host_cpu.clone()),
        ]
    }
}

pub(crate) fn is_id(text: &str) -> bool {
    text.len() == 2 * ID_BYTES && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
