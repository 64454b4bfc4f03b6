//! The record as a page: one file, no script, nothing fetched.

use std::fmt::Write;
use std::time::{Duration, SystemTime};

use anteroom_image::{Component, Finding, Reached, Verdict, Verification};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem;color:#1c2430}\
h1{font-size:1.5rem;margin:0}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse;width:100%}\
td,th{text-align:left;vertical-align:top;overflow-wrap:anywhere;padding:.4rem .6rem;border-bottom:1px solid #e3e6eb}th{font-weight:600;min-width:6rem}\
.passed{color:#146c36}.failed{color:#b3211a}.mark{font-weight:600;white-space:nowrap}code{font-size:.9em;overflow-wrap:anywhere}\
img{max-width:100%;border:1px solid #c9ced6}ul{margin:.3rem 0;padding-left:1.2rem}.quiet{color:#5b6573}";

/// The report.
pub fn html(record: &Verification, picture: Option<&[u8]>) -> String {
    let title = format!("Image {} on {}", record.image, record.cpu.profile);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>{title}</title>\n<style>{STYLE}</style>\n\
         <h1>{title}: <span class=\"{class}\">{verdict}</span></h1>\n",
        title = escaped(&title),
        class = class(record.verdict),
        verdict = verdict_name(record.verdict),
    );
    failures(&mut page, record);
    about(&mut page, record);
    if let Some(picture) = picture {
        let _ = writeln!(
            page,
            "<h2>The desktop</h2>\n<img alt=\"The booted desktop\" src=\"data:image/png;base64,{}\">",
            STANDARD.encode(picture)
        );
    }
    page.push_str(
        "<h2>Components</h2>\n<table>\n<tr><th>Component<th>Verdict<th>Version<th>Observed\n",
    );
    for component in &record.components {
        row(&mut page, component);
    }
    page.push_str("</table>\n");
    findings(&mut page, record);
    page.push_str("</html>\n");
    page
}

/// The components that failed, if any.
fn failures(page: &mut String, record: &Verification) {
    let failed = record.components.iter().filter(|one| one.verdict == Verdict::Failed);
    let names: Vec<&str> = failed.map(|component| component.name.as_str()).collect();
    if !names.is_empty() {
        let (count, all) = (names.len(), record.components.len());
        let names = escaped(&names.join(", "));
        let _ = writeln!(page, "<p>{count} of {all} components failed: {names}.</p>");
    }
}

fn about(page: &mut String, record: &Verification) {
    let began = SystemTime::UNIX_EPOCH + Duration::from_secs(record.began_at);
    let root = record.files.get("root.erofs").map_or("", |file| file.sha256.as_str());
    let _ = writeln!(
        page,
        "<p class=\"quiet\">{}, in {:.0} s, by Anteroom {} and {}.<br>Recipe <code>{}</code>, root <code>{}</code>,\
         <br>CPU <code>{}</code></p>",
        humantime::format_rfc3339_seconds(began),
        Duration::from_millis(record.took_ms).as_secs_f64(),
        escaped(&record.anteroom),
        escaped(&record.vmm),
        escaped(&record.recipe_digest),
        escaped(root),
        escaped(record.cpu.model.as_str()),
    );
}

fn row(page: &mut String, component: &Component) {
    let _ = writeln!(
        page,
        "<tr><th>{}<td class=\"mark {}\">{}<td>{}<td>{}",
        escaped(&component.name),
        class(component.verdict),
        verdict_name(component.verdict),
        escaped(component.version.as_deref().unwrap_or("–")),
        escaped(&component.observed),
    );
    if !component.evidence.is_empty() {
        page.push_str("<ul>");
        for line in &component.evidence {
            let _ = write!(page, "<li><code>{}</code>", escaped(line));
        }
        page.push_str("</ul>");
    }
    if let Some(advice) = &component.advice {
        let _ = write!(page, "<p>What to do: {}</p>", escaped(advice));
    }
    page.push('\n');
}

fn findings(page: &mut String, record: &Verification) {
    let inventory = &record.inventory;
    page.push_str("<h2>Instructions that the processor lacks</h2>");
    if let Some(why) = &inventory.unread {
        let _ = writeln!(page, "<p>The image's programs were not read: {}</p>", escaped(why));
        return;
    }
    let _ = writeln!(
        page,
        "<p>{0} of {1} programs and libraries contain instructions that {2} does not have. This does not fail an \
         image: most programs use such code only on a processor that has it, and what the image runs has been run.</p>",
        inventory.findings.len(),
        inventory.elf_files,
        escaped(&record.cpu.profile),
    );
    if inventory.findings.is_empty() {
        return;
    }
    page.push_str("<table>\n<tr><th>File<th>In the run<th>How it chooses<th>Instructions\n");
    for finding in &inventory.findings {
        let _ = writeln!(
            page,
            "<tr><td><code>{}</code><td>{}<td>{}<td>{}",
            escaped(&finding.path),
            reached(finding.reached),
            escaped(finding.chooses.as_deref().unwrap_or("nothing seen")),
            instructions(finding),
        );
    }
    page.push_str("</table>\n");
}

fn instructions(finding: &Finding) -> String {
    let mut text = String::new();
    if let Some(level) = &finding.isa_needed {
        let _ = write!(text, "The file declares that it needs {}.<br>", escaped(level));
    }
    for beyond in &finding.beyond {
        let place =
            beyond.symbol.as_ref().map_or(format!("{:#x}", beyond.file_offset), Clone::clone);
        let _ = write!(
            text,
            "{} {}, first <code>{}</code> in {}<br>",
            beyond.count,
            escaped(&beyond.feature),
            escaped(&beyond.first),
            escaped(&place),
        );
    }
    text
}

/// As the report names it.
pub fn reached(reached: Reached) -> &'static str {
    match reached {
        Reached::Reached => "reached",
        Reached::OpenedOnly => "opened, not reached",
        Reached::NotOpened => "not opened",
        Reached::Unknown => "not known",
    }
}

fn class(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Passed => "passed",
        Verdict::Failed => "failed",
    }
}

fn verdict_name(verdict: Verdict) -> &'static str {
    class(verdict)
}

/// Text of a guest in HTML.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use anteroom_image::{CpuModel, Inventory, Processor};

    use super::*;

    #[test]
    fn a_guest_s_text_is_no_markup() {
        let record = Verification {
            format: 1,
            image: "demo".into(),
            recipe_digest: "0".into(),
            files: [].into(),
            declared: String::new(),
            cpu: Processor {
                profile: "x86-64-v2".into(),
                model: CpuModel::Qemu("Nehalem-v1".into()),
            },
            not_emulated: Vec::new(),
            anteroom: "0.1.0".into(),
            vmm: "QEMU".into(),
            began_at: 0,
            took_ms: 61_000,
            verdict: Verdict::Failed,
            components: vec![Component {
                name: "browser".into(),
                version: Some("<script>".into()),
                observed: "it \"died\" & was < gone".into(),
                verdict: Verdict::Failed,
                evidence: vec!["<img src=x>".into()],
                advice: None,
            }],
            inventory: Inventory::default(),
        };
        let page = html(&record, Some(b"png"));
        assert!(!page.contains("<script") && !page.contains("<img src=x"), "{page}");
        assert!(page.contains("it &quot;died&quot; &amp; was &lt; gone"));
        assert!(page.contains("data:image/png;base64,cG5n"));
        assert!(page.contains("Image demo on x86-64-v2: <span class=\"failed\">failed</span>"));
    }
}
