use std::time::Duration;

use anteroom_cpu::CpuProfile;
use anteroom_crash::elf::{Beyond, Survey};
use anteroom_guest_protocol::{PageFacts, SystemFacts};
use anteroom_image::{CpuModel, Processor, ProgramSpec, Reached};
use anteroom_media::Codec;
use anteroom_media::screen::Screen;
use anteroom_media::viewed::view;

use super::*;
use crate::seen::{At, Hello, Ran, unexplained};

fn manifest() -> Manifest {
    let service = r#"{"name":"helper","command":["helper"],"ready":{"port":1}}"#;
    let program = r#"{"name":"node","command":["node","--version"]}"#;
    Manifest {
        format: 1,
        name: "demo".into(),
        recipe_digest: "0".into(),
        suite: "bookworm".into(),
        mirror: "m".into(),
        kernel: "6.1".into(),
        created_at: 1,
        build_ms: [].into(),
        files: [].into(),
        packages: Vec::new(),
        services: vec![serde_json::from_str(service).unwrap()],
        programs: vec![serde_json::from_str::<ProgramSpec>(program).unwrap()],
        verifications: Vec::new(),
    }
}

fn cpu() -> Chosen {
    let profile = CpuProfile::named("x86-64-v2").unwrap();
    let processor = Processor { profile: profile.name.clone(), model: CpuModel::Qemu("q".into()) };
    Chosen { processor, profile: Some(profile), not_emulated: Vec::new() }
}

fn ready() -> Service {
    Service { ready_after: Some(Duration::from_secs(5)), ..Service::default() }
}

/// A desktop with the page's bars.
fn screen() -> Screen {
    let (width, height) = (320_u16, 180_u16);
    let mut pixels = vec![255; usize::from(width) * usize::from(height) * 4];
    for (bar, [red, green, blue]) in BARS.into_iter().enumerate() {
        let from = bar * 20 * 320 * 4;
        for pixel in pixels[from..from + 20 * 320 * 4].chunks_exact_mut(4) {
            pixel.copy_from_slice(&[blue, green, red, 0]);
        }
    }
    let mut screen = Screen::default();
    screen.resize(width, height).unwrap();
    let whole = anteroom_guest_protocol::frames::Rect { x: 0, y: 0, width, height };
    screen.apply(&whole, &pixels).unwrap();
    screen
}

/// A VM with nothing wrong in it.
fn healthy() -> Seen {
    let has = CpuProfile::named("x86-64-v2").unwrap();
    let names = ["x", "window-manager", "browser", "helper"];
    Seen {
        hello: Some(Hello {
            agent_version: "0.1.0".into(),
            kernel: "6.1".into(),
            cpu: Some(has),
            after: Duration::from_secs(2),
        }),
        services: names.map(|name| (name.to_owned(), ready())).into(),
        programs: [(
            "node".to_owned(),
            Ran { first_lines: vec!["v20.1.0".into()], lived_ms: 300, failure: None },
        )]
        .into(),
        system: Some(Ok(At {
            what: SystemFacts {
                os: "Debian".into(),
                now_unix_ms: 10_000,
                memory_total_kib: 2_000_000,
                memory_available_kib: 1_500_000,
                certificates: 140,
            },
            host_unix_ms: 10_100,
        })),
        page: Some(Ok(PageFacts {
            user_agent: "Mozilla/5.0 Chrome/120.0.0.0 Safari/1".into(),
            now_unix_ms: 9_000,
            without_glyphs: Vec::new(),
            colour_emoji: true,
            wasm_simd: true,
            online: true,
        })),
        vnc_greeting: Some(Ok("RFB 003.008".into())),
        viewed: Some(Ok(view(&screen(), Codec::Vp9).unwrap())),
        opened: Some(Ok([].into())),
        ..Seen::default()
    }
}

fn judged(seen: &Seen) -> Judged {
    judge(&manifest(), &cpu(), seen, Ok(Surveyed { elf_files: 3, found: Vec::new() }), 0.5)
}

/// Names of what failed.
fn failed(seen: &Seen) -> Vec<String> {
    let judged = judged(seen);
    let components = judged.components.into_iter();
    let failed: Vec<String> =
        components.filter(|c| c.verdict == Verdict::Failed).map(|c| c.name).collect();
    assert_eq!(judged.verdict == Verdict::Failed, !failed.is_empty());
    failed
}

#[test]
fn a_sandbox_with_nothing_wrong_passes_and_reports_its_versions() {
    let judged = judged(&healthy());
    let of = |name: &str| judged.components.iter().find(|c| c.name == name).unwrap();
    assert_eq!(judged.verdict, Verdict::Passed);
    assert_eq!(of("browser").version.as_deref(), Some("Chromium 120.0.0.0"));
    assert_eq!(of("program node").version.as_deref(), Some("v20.1.0"));
    assert_eq!(of("VNC").version.as_deref(), Some("003.008"));
}

#[test]
fn each_thing_that_is_wrong_fails_its_own_line_alone() {
    let system = |change: &dyn Fn(&mut SystemFacts)| {
        let mut seen = healthy();
        if let Some(Ok(at)) = &mut seen.system {
            change(&mut at.what);
        }
        failed(&seen)
    };
    assert_eq!(system(&|facts| facts.certificates = 3), ["certificates"]);
    assert_eq!(system(&|facts| facts.now_unix_ms = 20_000), ["clock"]);
    assert_eq!(system(&|facts| facts.memory_available_kib = 1024), ["memory"]);
    let page = |change: &dyn Fn(&mut PageFacts)| {
        let mut seen = healthy();
        if let Some(Ok(facts)) = &mut seen.page {
            change(facts);
        }
        failed(&seen)
    };
    assert_eq!(page(&|facts| facts.without_glyphs = vec!["Han".into()]), ["fonts"]);
    assert_eq!(page(&|facts| facts.colour_emoji = false), ["fonts"]);
    assert_eq!(page(&|facts| facts.online = false), ["browser"]);
    // V8 has it only where the processor has SSE4.1.
    assert_eq!(page(&|facts| facts.wasm_simd = false), Vec::<String>::new());
    let mut seen = healthy();
    seen.vnc_greeting = Some(Ok("HTTP/1.1 400".into()));
    assert_eq!(failed(&seen), ["VNC"]);
    let mut seen = healthy();
    let mut blank = Screen::default();
    blank.resize(320, 180).unwrap();
    seen.viewed = Some(Ok(view(&blank, Codec::Vp9).unwrap()));
    assert_eq!(failed(&seen), ["media path"]);
    let mut seen = healthy();
    seen.services.get_mut("helper").unwrap().lost = Some(unexplained("it died".into()));
    assert_eq!(failed(&seen), ["service helper"]);
    let mut seen = healthy();
    seen.programs.get_mut("node").unwrap().failure = Some(unexplained("it died".into()));
    assert_eq!(failed(&seen), ["program node"]);
    let mut seen = healthy();
    seen.crashes.push(("browser".into(), unexplained("its child died".into())));
    assert_eq!(failed(&seen), ["child of browser"]);
    let mut seen = healthy();
    seen.hello.as_mut().unwrap().cpu = Some(CpuProfile::named("x86-64-v3").unwrap());
    assert_eq!(failed(&seen), ["processor"]);
}

#[test]
fn a_death_before_it_was_ready_is_reported_and_an_illegal_instruction_is_never_forgiven() {
    let mut seen = healthy();
    let helper = seen.services.get_mut("helper").unwrap();
    helper.deaths.push(unexplained("helper exited 1".into()));
    let judged = judged(&seen);
    let line = judged.components.iter().find(|c| c.name == "service helper").unwrap();
    assert_eq!(line.verdict, Verdict::Passed);
    assert!(line.observed.contains("it died before, once: helper exited 1"));
    seen.services.get_mut("helper").unwrap().died_ready = true;
    assert_eq!(failed(&seen), ["service helper"]);
    seen.services.get_mut("helper").unwrap().died_ready = false;
    let mut missing = unexplained("helper was stopped by an illegal instruction".into());
    missing.cause = Cause::MissingCpuFeature;
    seen.services.get_mut("helper").unwrap().deaths.push(missing);
    assert_eq!(failed(&seen), ["service helper"]);
}

#[test]
fn a_sandbox_that_ended_at_once_fails_everything_and_reports_why_once() {
    let seen = Seen { end: Some(unexplained("the kernel panicked".into())), ..Seen::default() };
    let judged = judged(&seen);
    assert_eq!(judged.verdict, Verdict::Failed);
    assert_eq!(judged.components[0].name, "sandbox");
    assert_eq!(judged.components[0].observed, "the kernel panicked");
    let reported = judged.components.iter().filter(|c| c.observed.contains("panicked")).count();
    assert_eq!(reported, 1);
    let passed = judged.components.iter().filter(|c| c.verdict == Verdict::Passed);
    assert_eq!(passed.map(|c| c.name.as_str()).collect::<Vec<_>>(), ["code"]);
}

#[test]
fn static_findings_fail_nothing_and_say_what_the_run_says() {
    let survey = || Survey {
        build_id: None,
        level_lacking: None,
        chooses: None,
        beyond: vec![Beyond {
            feature: Feature::Avx2,
            count: 2,
            first: "vpaddd ymm2, ymm1, ymm0".into(),
            file_offset: 4096,
            symbol: None,
        }],
    };
    let mut seen = healthy();
    seen.reached.insert("/srv/died".into());
    seen.opened = Some(Ok(["/srv/opened".to_owned(), "/srv/died".to_owned()].into()));
    let found = ["/srv/died", "/srv/never", "/srv/opened"].map(|path| (path.to_owned(), survey()));
    let surveyed = Surveyed { elf_files: 9, found: found.into() };
    let judged = judge(&manifest(), &cpu(), &seen, Ok(surveyed), 0.5);
    assert_eq!(judged.verdict, Verdict::Passed);
    let findings = judged.inventory.findings.iter();
    let reached: Vec<_> = findings.map(|f| (f.path.as_str(), f.reached)).collect();
    let expected = [
        ("/srv/died", Reached::Reached),
        ("/srv/opened", Reached::OpenedOnly),
        ("/srv/never", Reached::NotOpened),
    ];
    assert_eq!(reached, expected);
    let line = judged.components.last().unwrap();
    assert!(line.observed.contains("in 3 of 9 programs and libraries"), "{}", line.observed);
}
