//! The TLS proxies of docs/operate/tls-proxy.md, each from its own example file.

use std::fmt::{self, Display};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use xtask::{machine, shell};

/// A TLS proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Proxy {
    /// docs/examples/nginx.conf
    Nginx,
    /// docs/examples/Caddyfile
    Caddy,
}

/// What an operator puts into the example file, and where it listens.
pub struct Place<'a> {
    /// Certificate, configuration and state.
    pub folder: &'a Path,
    /// The public name.
    pub name: &'a str,
    /// Ports of 127.0.0.1.
    pub https: u16,
    pub http: u16,
    /// `127.0.0.1:port` of Anteroom.
    pub anteroom: &'a str,
}

/// nginx without the machine's own configuration around the example's.
const NGINX_CONTEXT: &str = "daemon off; pid nginx.pid; error_log stderr;
events {}
http {
    access_log off;
    client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
    uwsgi_temp_path uwsgi; scgi_temp_path scgi;
    include example.conf;
}
";

impl Proxy {
    /// All of them.
    pub const ALL: [Self; 2] = [Self::Nginx, Self::Caddy];

    /// The command that runs it in the foreground, its configuration written.
    pub fn configure(self, place: &Place) -> Result<Command> {
        let folder = place.folder;
        // A copy, since the workspace may be where the proxy's user cannot enter.
        let program = folder.join("program");
        std::fs::copy(self.program()?, &program).context("copying the proxy failed")?;
        let mut command = Command::new(program);
        command.current_dir(folder);
        match self {
            Self::Nginx => {
                std::fs::write(folder.join("example.conf"), nginx_example(place)?)?;
                std::fs::write(folder.join("nginx.conf"), NGINX_CONTEXT)?;
                command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
                command.args(["-e", "stderr"]);
            }
            Self::Caddy => {
                std::fs::write(folder.join("Caddyfile"), caddy_example(place)?)?;
                command.args(["run", "--config", "Caddyfile"]);
                command.env("HOME", folder);
                command.env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
            }
        }
        Ok(command)
    }

    /// What the command line says when it calls by another name than the public one: nginx passes
    /// the call on to Anteroom, which refuses it; Caddy has nothing there.
    pub fn refusal(self) -> &'static str {
        match self {
            Self::Nginx => "unknown_host",
            Self::Caddy => "not valid JSON",
        }
    }

    /// Where it leads who comes by http: nginx to where its file says, Caddy to 443, since a port of
    /// its own for TLS is one that 443 is forwarded to.
    pub fn leads_to(self, origin: &str, name: &str) -> String {
        match self {
            Self::Nginx => origin.to_owned(),
            Self::Caddy => format!("https://{name}"),
        }
    }

    fn program(self) -> Result<PathBuf> {
        match self {
            Self::Nginx => machine::unpacked("nginx", "usr/sbin/nginx"),
            Self::Caddy => machine::unpacked("caddy", "usr/bin/caddy"),
        }
    }
}

impl Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nginx => "nginx",
            Self::Caddy => "Caddy",
        })
    }
}

fn nginx_example(place: &Place) -> Result<String> {
    let &Place { name, https, http, anteroom, .. } = place;
    fill_in(
        "nginx.conf",
        &[
            ("listen 80;", format!("listen 127.0.0.1:{http};")),
            ("listen 443 ", format!("listen 127.0.0.1:{https} ")),
            ("/etc/letsencrypt/live/signin.example.com/fullchain.pem", "front.pem".into()),
            ("/etc/letsencrypt/live/signin.example.com/privkey.pem", "front.key".into()),
            ("https://signin.example.com$", format!("https://{name}:{https}$")),
            ("server_name signin.example.com;", format!("server_name {name};")),
            ("http://127.0.0.1:7070;", format!("http://{anteroom};")),
        ],
    )
}

fn caddy_example(place: &Place) -> Result<String> {
    let &Place { name, https, http, anteroom, .. } = place;
    let example = fill_in(
        "Caddyfile",
        &[
            ("signin.example.com {", format!("{name}:{https} {{")),
            (
                "# tls /etc/ssl/signin.example.com.pem /etc/ssl/private/signin.example.com.key",
                "tls front.pem front.key".into(),
            ),
            ("reverse_proxy 127.0.0.1:7070 ", format!("reverse_proxy {anteroom} ")),
        ],
    )?;
    let ports = format!("http_port {http}\n\thttps_port {https}\n\tdefault_bind 127.0.0.1");
    Ok(format!("{{\n\tadmin off\n\t{ports}\n}}\n{example}"))
}

/// An example file with an operator's own values. Each must have a place in it, or the test would
/// be of another file than the operator's.
fn fill_in(example: &str, values: &[(&str, String)]) -> Result<String> {
    let path = shell::root().join("docs/examples").join(example);
    let mut text = std::fs::read_to_string(&path)
        .with_context(|| format!("reading {} failed", path.display()))?;
    for (placeholder, value) in values {
        if !text.contains(placeholder) {
            bail!("{} has no {placeholder:?} to fill in any more", path.display());
        }
        text = text.replace(placeholder, value);
    }
    Ok(text)
}
