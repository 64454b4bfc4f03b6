//! What the image's programs hold beyond the processor, and what the run says of it. Pure.

use anteroom_crash::elf::Survey;
use anteroom_guest_link::chain;
use anteroom_image::{BeyondFeature, Finding, Inventory, Reached};

use crate::inventory::{InventoryError, Surveyed};
use crate::seen::Seen;

/// The inventory: what was reached comes first.
pub fn inventory(seen: &Seen, surveyed: Result<Surveyed, InventoryError>) -> Inventory {
    let surveyed = match surveyed {
        Ok(surveyed) => surveyed,
        Err(error) => {
            let unread = Some(chain(&error));
            return Inventory { unread, ..Inventory::default() };
        }
    };
    let opened = seen.opened.as_ref().and_then(|opened| opened.as_ref().ok());
    let mut findings: Vec<Finding> = surveyed
        .found
        .into_iter()
        .map(|(path, survey)| {
            let reached = match opened {
                _ if seen.reached.contains(&path) => Reached::Reached,
                Some(opened) if opened.contains(&path) => Reached::OpenedOnly,
                Some(_) => Reached::NotOpened,
                None => Reached::Unknown,
            };
            finding(path, reached, survey)
        })
        .collect();
    findings.sort_by(|one, other| one.reached.cmp(&other.reached).then(one.path.cmp(&other.path)));
    Inventory { elf_files: surveyed.elf_files, unread: None, findings }
}

fn finding(path: String, reached: Reached, survey: Survey) -> Finding {
    Finding {
        path,
        build_id: survey.build_id,
        isa_needed: survey.level_lacking.map(str::to_owned),
        chooses: survey.chooses.map(str::to_owned),
        reached,
        beyond: survey
            .beyond
            .into_iter()
            .map(|beyond| BeyondFeature {
                feature: beyond.feature.name().to_owned(),
                count: beyond.count,
                first: beyond.first,
                file_offset: beyond.file_offset,
                symbol: beyond.symbol.map(|symbol| symbol.name),
            })
            .collect(),
    }
}

/// An inventory in one sentence.
pub fn summary(inventory: &Inventory, profile: &str) -> String {
    let count = |wanted: Reached| {
        inventory.findings.iter().filter(|finding| finding.reached == wanted).count()
    };
    match &inventory.unread {
        Some(why) => format!("not read: {why}"),
        None => format!(
            "instructions that {profile} lacks are in {} of {} programs and libraries: {} reached them, {} were opened without reaching them, {} were not opened{}",
            inventory.findings.len(),
            inventory.elf_files,
            count(Reached::Reached),
            count(Reached::OpenedOnly),
            count(Reached::NotOpened),
            match count(Reached::Unknown) {
                0 => String::new(),
                unknown => format!(", of {unknown} it is not known"),
            }
        ),
    }
}
