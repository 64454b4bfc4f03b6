//! Streams a made-up desktop to a headless Chromium, which measures and reports:
//! `cargo run --release -p anteroom-media --example browser_check -- [VP9|VP8]`

use std::error::Error;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anteroom_guest_protocol::CursorImage;
use anteroom_guest_protocol::frames::{Rect, Request};
use anteroom_guest_protocol::input::InputEvent;
use anteroom_media::frame_source::{Frame, FrameSource, FrameSourceError};
use anteroom_media::service::{Media, MediaConfig, MediaDemux, MediaHandle, spawn};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::{Notify, mpsc};

const WIDTH: u16 = 1280;
const HEIGHT: u16 = 720;

const PHASES: [&str; 5] = ["animation", "scroll", "typing", "idle", "flips"];

/// What the made-up desktop does now.
#[derive(Default)]
struct Scene {
    phase: AtomicU8,
    flips: AtomicU32,
    changed: Notify,
}

struct Painter {
    scene: Arc<Scene>,
    page: Vec<u8>,
    step: usize,
    flips_shown: u32,
}

impl FrameSource for Painter {
    async fn next(&mut self, request: Request, frame: &mut Frame) -> Result<(), FrameSourceError> {
        frame.clear(WIDTH, HEIGHT);
        if request == Request::Everything {
            let whole = Rect { x: 0, y: 0, width: WIDTH, height: HEIGHT };
            let screen = self.part(&whole, 0);
            frame.push(whole, &screen);
            return Ok(());
        }
        loop {
            let phase = PHASES[usize::from(self.scene.phase.load(Ordering::SeqCst))];
            let rect = match phase {
                "animation" => Rect { x: 500, y: 300, width: 200, height: 200 },
                "scroll" => Rect { x: 0, y: 64, width: WIDTH, height: HEIGHT - 64 },
                "typing" => {
                    let column = u16::try_from(self.step % 90).unwrap_or(0);
                    Rect { x: 100 + column * 12, y: 100, width: 12, height: 18 }
                }
                _ => {
                    let flips = self.scene.flips.load(Ordering::SeqCst);
                    if flips != self.flips_shown {
                        self.flips_shown = flips;
                        let rect = Rect { x: 0, y: 0, width: 64, height: 64 };
                        let colour = if flips % 2 == 1 { 240 } else { 10 };
                        frame.push(rect, &vec![colour; rect.area() * 4]);
                        return Ok(());
                    }
                    let changed = self.scene.changed.notified();
                    let _ = tokio::time::timeout(Duration::from_secs(1), changed).await;
                    continue;
                }
            };
            let pause = if phase == "typing" { 100 } else { 16 };
            tokio::time::sleep(Duration::from_millis(pause)).await;
            self.step += 1;
            let pixels = self.part(&rect, self.step * 7);
            frame.push(rect, &pixels);
            return Ok(());
        }
    }
}

impl Painter {
    /// A part of the page, scrolled by so many lines.
    fn part(&self, rect: &Rect, scrolled: usize) -> Vec<u8> {
        let lines = self.page.len() / (usize::from(WIDTH) * 4);
        (0..usize::from(rect.height))
            .flat_map(|line| {
                let line = (usize::from(rect.y) + line + scrolled) % lines;
                let start = (line * usize::from(WIDTH) + usize::from(rect.x)) * 4;
                self.page[start..start + usize::from(rect.width) * 4].iter().copied()
            })
            .collect()
    }
}

/// Dark strokes on white, three screens high.
fn page() -> Vec<u8> {
    let (width, height) = (usize::from(WIDTH), usize::from(HEIGHT) * 3);
    let mut pixels = vec![255; width * height * 4];
    let mut state = 1u32;
    for line in (70..height - 24).step_by(20) {
        for glyph in (40..width - 60).step_by(10) {
            for stroke in 0..3 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let (dx, dy) = (((state >> 8) % 6) as usize, ((state >> 16) % 10) as usize);
                for step in 0..5 {
                    let (sx, sy) = if stroke % 2 == 0 { (0, step) } else { (step, 0) };
                    let at = ((line + dy + sy) * width + glyph + dx + sx) * 4;
                    pixels[at..at + 3].fill(30);
                }
            }
        }
    }
    pixels
}

/// The viewers' port, in this very process.
struct Loopback(std::net::UdpSocket);

impl MediaDemux for Loopback {
    fn authenticated(&mut self, _from: SocketAddr) {}

    fn send(&mut self, to: SocketAddr, packet: &[u8]) -> std::io::Result<()> {
        self.0.send_to(packet, to).map(drop)
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let codec = std::env::args().nth(1).unwrap_or_else(|| "VP9".into());
    let udp = UdpSocket::bind("127.0.0.1:0").await?;
    let address = udp.local_addr()?;
    let std_udp = udp.into_std()?;
    let receiver = UdpSocket::from_std(std_udp.try_clone()?)?;
    let scene = Arc::new(Scene::default());
    let painter = Painter { scene: Arc::clone(&scene), page: page(), step: 0, flips_shown: 0 };
    let config = MediaConfig {
        candidates: vec![address],
        media_demux: Box::new(Loopback(std_udp)),
        max_bitrate_bps: 20_000_000,
        start_bitrate_bps: 8_000_000,
    };
    let Media { handle, mut input, mut events, task: _task } = spawn(config, painter)?;
    let datagrams = handle.clone();
    tokio::spawn(async move {
        let mut buffer = vec![0; 2048];
        while let Ok((length, from)) = receiver.recv_from(&mut buffer).await {
            datagrams.datagram(from, buffer[..length].to_vec());
        }
    });
    let typed = Arc::clone(&scene);
    tokio::spawn(async move {
        while let Some(event) = input.recv().await {
            if matches!(event, InputEvent::Key { .. }) {
                typed.flips.fetch_add(1, Ordering::SeqCst);
                typed.changed.notify_one();
            }
        }
    });
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            eprintln!("event: {event:?}");
        }
    });
    let rgba_base64 = "AAAA/w==".into();
    handle.cursor(CursorImage { width: 1, height: 1, hot_x: 0, hot_y: 0, rgba_base64 }).await;

    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/?codec={codec}", listener.local_addr()?);
    let profile = tempfile_dir()?;
    let mut browser = tokio::process::Command::new("/usr/bin/chromium")
        .args(["--headless=new", "--no-sandbox", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--allow-loopback-in-peer-connection", "--autoplay-policy=no-user-gesture-required"])
        .arg("--disable-features=WebRtcHideLocalIpsWithMdns")
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(&url)
        .stderr(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let (finish, mut finished) = mpsc::channel(1);
    let serve = serve(listener, handle.clone(), scene, finish);
    let result = tokio::select! {
        () = serve => Err("the server ended"),
        result = finished.recv() => result.ok_or("no result"),
        () = tokio::time::sleep(Duration::from_secs(90)) => Err("no result within 90 s"),
    };
    let png = handle.screenshot().await?;
    println!("screenshot: {} bytes of PNG", png.len());
    println!("stats: {:?}", handle.stats());
    browser.kill().await?;
    let _ = std::fs::remove_dir_all(&profile);
    println!("{}", result?);
    Ok(())
}

fn tempfile_dir() -> std::io::Result<std::path::PathBuf> {
    let path = std::env::temp_dir().join(format!("anteroom-browser-check-{}", std::process::id()));
    std::fs::create_dir_all(&path)?;
    Ok(path)
}

async fn serve(
    listener: TcpListener,
    media: MediaHandle,
    scene: Arc<Scene>,
    finish: mpsc::Sender<String>,
) {
    let mark = Arc::new(std::sync::Mutex::new((Instant::now(), cpu_ticks())));
    while let Ok((stream, _)) = listener.accept().await {
        let (media, scene, finish, mark) =
            (media.clone(), Arc::clone(&scene), finish.clone(), Arc::clone(&mark));
        tokio::spawn(async move {
            if let Err(error) = answer(stream, &media, &scene, &finish, &mark).await {
                eprintln!("a request failed: {error}");
            }
        });
    }
}

async fn answer(
    mut stream: TcpStream,
    media: &MediaHandle,
    scene: &Scene,
    finish: &mpsc::Sender<String>,
    mark: &std::sync::Mutex<(Instant, u64)>,
) -> Result<(), Box<dyn Error>> {
    let (path, body) = request(&mut stream).await?;
    let reply = match path.as_str() {
        path if path == "/" || path.starts_with("/?") => {
            include_str!("browser_check.html").to_owned()
        }
        "/offer" => match media
            .offer(body, anteroom_session::AccessGrant::ApiKey { key: "check".parse()? })
            .await
        {
            Ok(accepted) => accepted.answer_sdp,
            Err(error) => {
                eprintln!("{error}: {:?}", error.source());
                String::new()
            }
        },
        "/mark" => {
            let (at, ticks) = std::mem::replace(
                &mut *mark.lock().expect("no panic"),
                (Instant::now(), cpu_ticks()),
            );
            #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
            let used = (cpu_ticks() - ticks) as f64 / 100.0 / at.elapsed().as_secs_f64();
            format!("{{\"cpuOfACore\":{used:.4},\"total\":\"{:?}\"}}", media.stats())
        }
        "/result" => {
            finish.send(body).await?;
            String::new()
        }
        other => {
            if let Some(phase) = PHASES.iter().position(|phase| other == format!("/phase/{phase}"))
            {
                scene.phase.store(u8::try_from(phase)?, Ordering::SeqCst);
                scene.changed.notify_one();
            }
            String::new()
        }
    };
    let kind = if path.starts_with("/?") { "text/html" } else { "text/plain" };
    let head = format!(
        "HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
        reply.len()
    );
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(reply.as_bytes()).await?;
    Ok(stream.shutdown().await?)
}

/// Path and body of a request.
async fn request(stream: &mut TcpStream) -> Result<(String, String), Box<dyn Error>> {
    let mut bytes = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&bytes).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head
                .lines()
                .filter_map(|line| line.split_once(':'))
                .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
                .map_or(Ok(0), |(_, value)| value.trim().parse())?;
            if body.len() >= length {
                let path = head.split(' ').nth(1).unwrap_or("/").to_owned();
                return Ok((path, body.to_owned()));
            }
        }
        if stream.read_buf(&mut bytes).await? == 0 {
            return Err("the request ended early".into());
        }
    }
}

/// Processor time of this process, in hundredths of a second.
fn cpu_ticks() -> u64 {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
    let field =
        |n: usize| after_name.split(' ').nth(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    field(11) + field(12)
}
