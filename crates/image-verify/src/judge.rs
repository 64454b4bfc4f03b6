//! From what was seen to components and findings. Pure.

use std::collections::BTreeSet;
use std::time::Duration;

use anteroom_cpu::{CpuProfile, Feature, Standing};
use anteroom_guest_protocol::ServiceSpec;
use anteroom_image::{Component, Inventory, Manifest, Verdict};
use anteroom_session::counted::counted;
use anteroom_session::{Cause, Explanation};

use crate::findings::{inventory, summary};
use crate::inquiry::{BARS, LEAST_PART};
use crate::inventory::{InventoryError, Surveyed};
use crate::processor::Chosen;
use crate::seen::{OWN_SERVICES, Seen, Service};

/// How far the guest's clock may be from the host's, in milliseconds.
const CLOCK_MS: u64 = 5_000;

/// A machine with so many processes for each processor slows a VM down.
const BUSY: f64 = 2.0;

/// Memory that a sign-in page needs, in MiB.
const FREE_MIB: u64 = 256;

/// A bundle with fewer certificate authorities than this is not a browser's.
const AUTHORITIES: u32 = 50;

/// A decoded frame that is less like its original than this cannot be read, in dB.
const SHARP_DB: f64 = 25.0;

/// The judgement.
pub struct Judged {
    pub components: Vec<Component>,
    pub inventory: Inventory,
    pub verdict: Verdict,
}

/// Judges what was seen of an image. `busy`: how many processes wanted each processor of the host.
pub fn judge(
    manifest: &Manifest,
    cpu: &Chosen,
    seen: &Seen,
    surveyed: Result<Surveyed, InventoryError>,
    busy: f64,
) -> Judged {
    let mut lines = Lines { seen, busy, components: Vec::new() };
    lines.sandbox();
    lines.agent();
    lines.processor(cpu.profile.as_ref(), &cpu.processor.profile, &cpu.not_emulated);
    lines.base_system(&manifest.suite);
    lines.desktop();
    lines.browser();
    lines.media();
    lines.vnc();
    lines.fonts();
    lines.certificates();
    lines.clock();
    for service in &manifest.services {
        lines.service(service);
    }
    for program in &manifest.programs {
        lines.program(&program.name, &program.command);
    }
    lines.crashes();
    lines.memory();
    let inventory = inventory(seen, surveyed);
    // It never fails an image: what runs has been run.
    lines.add("code", None, Ok(summary(&inventory, &cpu.processor.profile)));
    let components = lines.components;
    let all_passed = components.iter().all(|component| component.verdict == Verdict::Passed);
    let verdict = if all_passed { Verdict::Passed } else { Verdict::Failed };
    Judged { components, inventory, verdict }
}

/// Components, made one by one.
struct Lines<'a> {
    seen: &'a Seen,
    busy: f64,
    components: Vec<Component>,
}

impl Lines<'_> {
    fn add(&mut self, name: &str, version: Option<String>, observed: Result<String, String>) {
        let (verdict, observed) = match observed {
            Ok(observed) => (Verdict::Passed, observed),
            Err(observed) => (Verdict::Failed, observed),
        };
        let version = version.filter(|version| !version.is_empty());
        self.components.push(Component {
            name: name.to_owned(),
            version,
            observed,
            verdict,
            evidence: Vec::new(),
            advice: None,
        });
    }

    /// The same with what to do about a failure.
    fn add_advised(&mut self, name: &str, observed: Result<String, String>, advice: &str) {
        let failed = observed.is_err();
        self.add(name, None, observed);
        if failed && let Some(component) = self.components.last_mut() {
            component.advice = Some(advice.to_owned());
        }
    }

    fn fail(&mut self, name: &str, version: Option<String>, why: &Explanation) {
        self.add(name, version, Err(why.sentence.clone()));
        if let Some(component) = self.components.last_mut() {
            component.evidence = why.evidence.clone();
            component.advice = why.advice.clone();
            if why.cause == Cause::Stall && self.busy >= BUSY {
                component.advice = Some(format!(
                    "this machine was busy ({:.1} runnable processes per processor); verify again when it is not busy",
                    self.busy
                ));
            }
        }
    }

    /// Something that the VM ended before.
    fn not_reached(&mut self, name: &str) {
        let browser = self.seen.services.get("browser");
        let why = match (&self.seen.end, browser) {
            (Some(_), _) => ", because the VM had ended",
            (None, Some(browser)) if browser.lost.is_some() => ", because there was no browser",
            (None, _) => "",
        };
        self.add(name, None, Err(format!("not checked{why}")));
    }

    /// An end that no line of a service reports.
    fn sandbox(&mut self) {
        let Some(end) = &self.seen.end else { return };
        let of_service = self.seen.services.values().any(|service| service.lost.is_some());
        if !of_service {
            self.fail("sandbox", None, end);
        }
    }

    fn agent(&mut self) {
        match &self.seen.hello {
            Some(hello) => {
                let observed = format!("connected {} after power-on", seconds(hello.after));
                self.add("agent", Some(hello.agent_version.clone()), Ok(observed));
            }
            None => self.not_reached("agent"),
        }
    }

    fn processor(&mut self, profile: Option<&CpuProfile>, name: &str, not_emulated: &[String]) {
        let Some(has) = self.seen.hello.as_ref().and_then(|hello| hello.cpu.as_ref()) else {
            return self.not_reached("processor");
        };
        let has = has.features(Standing::On);
        let version = Some(name.to_owned());
        let Some(profile) = profile else {
            let observed = format!(
                "the guest's CPUID shows {}",
                counted(has.len(), "known feature", "known features")
            );
            return self.add("processor", version, Ok(observed));
        };
        self.add("processor", version, same_features(profile, &has, not_emulated));
    }

    fn base_system(&mut self, suite: &str) {
        let kernel = self.seen.hello.as_ref().map(|hello| hello.kernel.clone());
        match &self.seen.system {
            Some(Ok(system)) => {
                let version = Some(system.what.os.clone());
                let kernel = kernel.unwrap_or_default();
                let observed = format!("booted from the read-only image ({suite}), Linux {kernel}");
                self.add("base system", version, Ok(observed));
            }
            Some(Err(why)) => self.add("base system", kernel, Err(why.clone())),
            None => self.not_reached("base system"),
        }
    }

    fn desktop(&mut self) {
        for name in &OWN_SERVICES[..2] {
            let service = self.seen.services.get(*name);
            let label = if *name == "x" { "X server" } else { "window manager" };
            self.kept(label, service, "accepted a client", None);
        }
    }

    /// A service that must be ready at the end.
    fn kept(&mut self, label: &str, service: Option<&Service>, how: &str, version: Option<String>) {
        let Some(service) = service else { return self.not_reached(label) };
        if let Some(why) = &service.lost {
            return self.fail(label, version, why);
        }
        match (service.ready_after, service.deaths.last()) {
            (Some(after), last) => {
                let deaths = last.map_or(String::new(), |last| {
                    let times = match service.deaths.len() {
                        1 => "once".to_owned(),
                        count => format!("{count} times, the last time"),
                    };
                    format!("; it died before, {times}: {}", last.sentence)
                });
                let observed = format!("{how}, {} after power-on{deaths}", seconds(after));
                // A missing instruction is met again by whoever does the same again.
                let missing = service.deaths.iter().find(|d| d.cause == Cause::MissingCpuFeature);
                // Before it is ready it may wait for another; afterwards it has no reason to die.
                let fatal = missing.or(last.filter(|_| service.died_ready));
                match fatal {
                    Some(why) => self.fail(label, version, why),
                    None => self.add(label, version, Ok(observed)),
                }
            }
            (None, Some(last)) => self.fail(label, version, last),
            (None, None) => self.add(label, version, Err("it did not become ready".to_owned())),
        }
    }

    fn browser(&mut self) {
        let page = self.seen.page.as_ref();
        let version =
            page.and_then(|page| page.as_ref().ok()).map(|page| browser_version(&page.user_agent));
        let service = self.seen.services.get("browser");
        let is_ready = service.is_some_and(|service| service.lost.is_none());
        match page {
            Some(Ok(page)) if is_ready && page.online => {
                let after = service.and_then(|service| service.ready_after);
                let after = after.map_or(String::new(), |at| {
                    format!("its window was on the screen {} after power-on; ", seconds(at))
                });
                // Not a failure: V8 has it only on processors with SSE4.1, and sign-in pages do without.
                let simd = if page.wasm_simd { "has" } else { "lacks" };
                let observed =
                    format!("{after}its page ran a script, is online, and {simd} WebAssembly SIMD");
                self.add("browser", version, Ok(observed));
            }
            Some(Ok(_)) if is_ready => {
                let observed = "its page ran a script, but reports that it is offline";
                self.add("browser", version, Err(observed.to_owned()));
            }
            Some(Err(why)) if is_ready => self.add("browser", version, Err(why.clone())),
            _ => self.kept("browser", service, "", version),
        }
    }

    fn media(&mut self) {
        match &self.seen.viewed {
            Some(Ok(viewed)) => {
                let parts = BARS.map(|bar| viewed.part_of(bar));
                let shows = parts.iter().all(|part| *part >= LEAST_PART);
                let kib = viewed.encoded_bytes / 1024;
                let observed = format!(
                    "a frame of the desktop, encoded as VP9 ({kib} KiB) and decoded again, at {:.0} dB",
                    viewed.psnr_db
                );
                let observed = match (shows, viewed.psnr_db >= SHARP_DB) {
                    (true, true) => Ok(format!("{observed}, shows the browser's page")),
                    (true, false) => Err(format!("{observed}, differs from its original")),
                    (false, _) => Err(format!("{observed}, does not show the browser's page")),
                };
                self.add("media path", Some("VP9".to_owned()), observed);
            }
            Some(Err(why)) => self.add("media path", None, Err(why.clone())),
            None => self.not_reached("media path"),
        }
    }

    fn vnc(&mut self) {
        match &self.seen.vnc_greeting {
            Some(Ok(text)) if text.starts_with("RFB ") => {
                let observed = format!("its socket greets with {text:?}");
                self.add("VNC", Some(text.trim_start_matches("RFB ").to_owned()), Ok(observed));
            }
            Some(Ok(text)) => self.add(
                "VNC",
                None,
                Err(format!("its socket greets with {text:?}, which is not RFB")),
            ),
            Some(Err(why)) => self.add("VNC", None, Err(why.clone())),
            None => self.not_reached("VNC"),
        }
    }

    fn fonts(&mut self) {
        match &self.seen.page {
            Some(Ok(page)) => {
                let mut missing = page.without_glyphs.clone();
                if !page.colour_emoji {
                    missing.push("emoji in colour".to_owned());
                }
                let observed = if missing.is_empty() {
                    Ok("Latin, Greek, Cyrillic, Han, Kana, Hangul and emoji are drawn with glyphs of their own".to_owned())
                } else {
                    Err(format!("no font of the image draws {}", missing.join(", ")))
                };
                let advice = "add a font package to the recipe, such as fonts-wqy-microhei, fonts-dejavu-core or fonts-noto-color-emoji";
                self.add_advised("fonts", observed, advice);
            }
            Some(Err(_)) => {
                self.add("fonts", None, Err("the browser's page did not run its script".to_owned()))
            }
            None => self.not_reached("fonts"),
        }
    }

    fn certificates(&mut self) {
        let Some(Ok(system)) = &self.seen.system else { return self.not_reached("certificates") };
        let count = system.what.certificates;
        let authorities = counted(count, "authority", "authorities");
        let observed = format!("{authorities} in /etc/ssl/certs/ca-certificates.crt");
        let observed = if count >= AUTHORITIES { Ok(observed) } else { Err(observed) };
        let advice = "add the package ca-certificates to the recipe";
        self.add_advised("certificates", observed, advice);
    }

    fn clock(&mut self) {
        let Some(Ok(system)) = &self.seen.system else { return self.not_reached("clock") };
        let apart = system.what.now_unix_ms.abs_diff(system.host_unix_ms);
        let observed = format!("{apart} ms apart from the host's clock");
        let near = apart <= CLOCK_MS;
        self.add("clock", None, if near { Ok(observed) } else { Err(observed) });
    }

    fn memory(&mut self) {
        let Some(Ok(system)) = &self.seen.system else { return self.not_reached("memory") };
        let mib = |kib: u64| kib / 1024;
        let (free, all) =
            (mib(system.what.memory_available_kib), mib(system.what.memory_total_kib));
        let observed = format!("{free} of {all} MiB are free with everything running");
        let observed = if free >= FREE_MIB { Ok(observed) } else { Err(observed) };
        let advice = format!(
            "a sign-in page needs {FREE_MIB} MiB: give guests more with --memory, or run less in the image"
        );
        self.add_advised("memory", observed, &advice);
    }

    fn service(&mut self, spec: &ServiceSpec) {
        let how = if spec.ready.is_some() { "answered its probe" } else { "was started" };
        let label = format!("service {}", spec.name);
        self.kept(&label, self.seen.services.get(&spec.name), how, None);
    }

    fn program(&mut self, name: &str, command: &[String]) {
        let label = format!("program {name}");
        let Some(ran) = self.seen.programs.get(name) else { return self.not_reached(&label) };
        let version = ran.first_lines.iter().find(|line| holds_version(line)).cloned();
        match &ran.failure {
            Some(why) => self.fail(&label, None, why),
            None => {
                let took = seconds(Duration::from_millis(ran.lived_ms));
                let observed = format!("`{}` succeeded after {took}", command.join(" "));
                self.add(&label, version, Ok(observed));
            }
        }
    }

    /// Children of services, which have no line of their own.
    fn crashes(&mut self) {
        for (service, why) in &self.seen.crashes {
            self.fail(&format!("child of {service}"), None, why);
        }
    }
}

/// Whether a guest sees the features of a profile and no others.
fn same_features(
    profile: &CpuProfile,
    has: &BTreeSet<Feature>,
    not_emulated: &[String],
) -> Result<String, String> {
    let wanted = profile.features(Standing::On);
    let emulated = |feature: &&Feature| !not_emulated.iter().any(|name| name == feature.name());
    let names = |features: Vec<&Feature>| {
        features.iter().map(|feature| feature.name()).collect::<Vec<_>>().join(", ")
    };
    let missing: Vec<&Feature> = wanted.difference(has).filter(emulated).collect();
    // What no guest boots without, and what follows from XSAVE (see `qemu_cpu_model`).
    let tolerated = [Feature::Xsaveopt, Feature::Osxsave];
    let more: Vec<&Feature> = has.difference(&wanted).filter(|f| !tolerated.contains(f)).collect();
    if !missing.is_empty() || !more.is_empty() {
        return Err(format!(
            "the guest does not see the profile's features: it lacks [{}] and also has [{}]",
            names(missing),
            names(more)
        ));
    }
    let beside = if not_emulated.is_empty() {
        String::new()
    } else {
        format!(
            "; QEMU cannot emulate {}, so nothing that needs them was run",
            not_emulated.join(", ")
        )
    };
    Ok(format!(
        "the guest's CPUID shows the profile's {} and no others{beside}",
        counted(wanted.len().saturating_sub(not_emulated.len()), "feature", "features")
    ))
}

/// Whether a line holds digits, a point and digits, as a version does.
fn holds_version(line: &str) -> bool {
    let bytes = line.as_bytes();
    bytes.windows(3).any(|w| w[0].is_ascii_digit() && w[1] == b'.' && w[2].is_ascii_digit())
}

/// `Chromium 120.0` of a user agent.
fn browser_version(user_agent: &str) -> String {
    let product = user_agent.split(' ').find(|word| word.starts_with("Chrome/"));
    product.map_or(user_agent.to_owned(), |word| word.replace("Chrome/", "Chromium "))
}

fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}

#[cfg(test)]
mod tests;
