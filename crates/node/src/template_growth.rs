//! A template's memory grows while clones run. A page of zeros takes nothing of it, but the first clone that touches
//! one has the kernel put it there: of a file in memory it maps no page that the file does not have. It stays, as
//! the memory is sealed, and could take as much as the guest has. So a template that has grown much is replaced by
//! a copy without these pages, where no session has it: then its memory goes at once.

use std::io;
use std::sync::Arc;

use anteroom_guest_session::TemplateFiles;

use super::recorded::Recorded;
use super::template_memory::bytes_of;
use super::templates::{Template, Templates};

/// What a template may have grown by: a copy is as much work as loading it.
const MOST_BYTES: u64 = 256 << 20;

/// The first of them that has grown so much and that no session has, where `waiting` says how many clones of it
/// wait.
pub fn grown(
    templates: &[Arc<Template>],
    waiting: impl Fn(&Arc<Template>) -> usize,
) -> Option<&Arc<Template>> {
    // Whoever knows all templates has each once, and the caller.
    let is_unused = |one: &Arc<Template>| Arc::strong_count(one) <= 2 + waiting(one);
    templates
        .iter()
        .find(|one| bytes_of(&one.files.memory) > one.loaded_bytes + MOST_BYTES && is_unused(one))
}

/// Has clones made of a copy of it that takes as little as when it was loaded. It reads all of it.
pub fn replace(templates: &Templates, template: &Arc<Template>) -> io::Result<()> {
    let memory = template.files.memory.try_clone()?;
    let memory = Arc::new(anteroom_template::without_zeros(memory)?);
    let files = TemplateFiles { memory, state: Arc::clone(&template.files.state) };
    let taken = (bytes_of(&template.files.memory), bytes_of(&files.memory));
    let recorded: Recorded = template.recorded.of_copy(&files);
    templates.replace(template, template.copy(files, recorded));
    let (before_mib, after_mib) = (taken.0 >> 20, taken.1 >> 20);
    tracing::info!(
        template = template.id,
        before_mib,
        after_mib,
        "pages that clones left are freed"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::OwnedFd;

    use super::*;

    #[test]
    fn one_that_has_grown_and_that_no_session_has_is_replaced_by_what_it_was() {
        let mut memory = anteroom_template::in_memory("grown").unwrap();
        memory.write_all(&[7; 8192]).unwrap();
        let zeros = vec![0; 1 << 20];
        for _ in 0..MOST_BYTES >> 20 {
            memory.write_all(&zeros).unwrap();
        }
        let template = Template::with_memory(OwnedFd::from(memory));
        let templates = Templates::of_test(&template);
        let all = [template];
        let of_a_clone = Arc::clone(&all[0]);
        assert!(grown(&all, |_| 0).is_none());
        replace(&templates, grown(&all, |_| 1).unwrap()).unwrap();
        let now = templates.only().unwrap();
        assert_eq!((bytes_of(&now.files.memory), now.loaded_bytes), (8192, 8192));
        let length = |one: &Template| {
            File::from(one.files.memory.try_clone().unwrap()).metadata().unwrap().len()
        };
        assert_eq!(length(&now), length(&of_a_clone));
        // It has not grown yet, whoever has it.
        assert!(grown(&[now], |_| 9).is_none());
        // Another was made meanwhile.
        replace(&templates, &all[0]).unwrap();
    }
}
