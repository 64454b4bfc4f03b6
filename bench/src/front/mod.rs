//! What stands between Anteroom and an end user elsewhere: a public name, a TLS proxy, and a UDP port
//! that is forwarded. All of it is on loopback, and gone when dropped.

mod checks;
mod forwarding;
mod proxy;

use std::fs::File;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::server::Server;
use anteroom_testkit::end_user;

use crate::certificates;
use forwarding::Forwarding;
use proxy::Place;
pub use proxy::Proxy;
use xtask::{interrupt, machine, shell};

/// The public name. No resolver knows it, so whoever gets through was led here by us.
const NAME: &str = "signin.anteroom.test";

/// `nobody`: a proxy needs no rights but to its own files.
const NOBODY: u32 = 65534;

/// How long the proxy may take to listen.
const READY: Duration = Duration::from_secs(30);

/// The way in from elsewhere.
pub struct Front {
    proxy: Proxy,
    // Before the folder, so that it ends before that goes.
    running: Option<Running>,
    folder: tempfile::TempDir,
    authority_pem: String,
    https: u16,
    http: u16,
    media: Forwarding,
}

/// The proxy's process.
struct Running(Child);

impl Front {
    /// Prepares all that can be before Anteroom runs, which gets the name and the port as flags.
    pub fn prepare(proxy: Proxy) -> Result<Self> {
        let folder = tempfile::Builder::new().prefix("xtask-front-").tempdir()?;
        // By its number it is called too, to be refused.
        let hosts = [NAME, &Ipv4Addr::LOCALHOST.to_string()];
        let authority_pem = certificates::make(folder.path(), "front", &hosts)?;
        std::fs::write(folder.path().join("authority.pem"), &authority_pem)?;
        trust(folder.path())?;
        let (https, http) = two_free_ports()?;
        Ok(Self {
            proxy,
            folder,
            authority_pem,
            https,
            http,
            media: Forwarding::open()?,
            running: None,
        })
    }

    /// What `anteroom serve` has to know.
    pub fn serve_options(&self) -> Result<Vec<String>> {
        let advertised = self.media.address()?.to_string();
        Ok([
            "--public-url",
            &self.origin(),
            "--advertise-address",
            &advertised,
            "--trusted-proxy",
            "127.0.0.1",
        ]
        .map(str::to_owned)
        .into())
    }

    /// `https://name:port`, as browsers write it.
    fn origin(&self) -> String {
        format!("https://{NAME}:{}", self.https)
    }

    /// Leads to the server.
    pub fn open(&mut self, server: &Server) -> Result<()> {
        self.media.lead_to(server.media());
        let place = Place {
            folder: self.folder.path(),
            name: NAME,
            https: self.https,
            http: self.http,
            anteroom: server.url().trim_start_matches("http://"),
        };
        let mut command = self.proxy.configure(&place)?;
        if machine::is_root()? {
            give_away(self.folder.path())?;
            command.uid(NOBODY).gid(NOBODY);
        }
        let log = File::create(self.log())?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let child = command.spawn().with_context(|| format!("starting {} failed", self.proxy))?;
        self.running = Some(Running(child));
        self.wait_until_it_listens()
    }

    fn wait_until_it_listens(&mut self) -> Result<()> {
        let started = Instant::now();
        while [self.https, self.http]
            .iter()
            .any(|port| TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).is_err())
        {
            interrupt::check()?;
            let ended =
                self.running.as_mut().map(|running| running.0.try_wait()).transpose()?.flatten();
            if ended.is_some() || started.elapsed() > READY {
                bail!("{} does not listen; it said: {}", self.proxy, self.said());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// How the end user's browser finds its way.
    pub fn directions(&self) -> end_user::Directions {
        end_user::Directions { name: NAME.into(), home: self.folder.path().join("home") }
    }

    /// Ends the proxy; its folder goes too.
    pub fn stop(mut self) -> Result<()> {
        if let Some(mut running) = self.running.take() {
            running.end().with_context(|| format!("ending {} failed", self.proxy))?;
        }
        self.folder.close().context("removing the proxy's folder failed")
    }

    fn log(&self) -> std::path::PathBuf {
        self.folder.path().join("log")
    }

    fn said(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default().trim().to_owned()
    }
}

impl Running {
    /// In order: nginx's workers go with their master then.
    fn end(&mut self) -> Result<()> {
        if self.0.try_wait()?.is_none() {
            shell::output(Command::new("kill").args(["-TERM", &self.0.id().to_string()]))?;
            self.0.wait()?;
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.end();
    }
}

/// A home folder whose Chromium trusts the authority.
fn trust(folder: &Path) -> Result<()> {
    let store = folder.join("home/.pki/nssdb");
    std::fs::create_dir_all(&store)?;
    let database = format!("sql:{}", store.display());
    let certutil = |arguments: &[&str]| {
        shell::output(Command::new("certutil").args(["-d", &database]).args(arguments))
    };
    certutil(&["-N", "--empty-password"])?;
    let authority = folder.join("authority.pem").display().to_string();
    certutil(&["-A", "-n", "front", "-t", "C,,", "-i", &authority])?;
    Ok(())
}

/// Both are held until both are known, or they could be the same.
fn two_free_ports() -> Result<(u16, u16)> {
    let listener = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
    let (one, other) = (listener()?, listener()?);
    Ok((one.local_addr()?.port(), other.local_addr()?.port()))
}

/// Makes what is in the folder the proxy's.
fn give_away(folder: &Path) -> Result<()> {
    let give = |path: &Path| std::os::unix::fs::chown(path, Some(NOBODY), Some(NOBODY));
    give(folder)?;
    for entry in std::fs::read_dir(folder)? {
        give(&entry?.path())?;
    }
    Ok(())
}
