//! `anteroom serve`.

use std::collections::BTreeMap;
use std::io::IsTerminal;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anteroom_api::{AllowedHosts, KeyRole, MadeKey, Problem, router};
use anteroom_confine::HostCapabilities;
use anteroom_controller::{
    Controller, DATABASE, Keep, Limits, Providers, SCREEN, Settings, SqliteStore, Store,
};
use anteroom_guest_protocol::ServiceSpec;
use anteroom_guest_session::template::Host;
use anteroom_node::{DriverChoice, LocalNode, NodeSettings, TemplateSettings, usual_sessions};
use anteroom_node_protocol::Node;
use anteroom_private as private;
use anteroom_provider::{Custody, Provider};
use anteroom_session::{Actor, ProviderId};
use anteroom_template::MachineKey;
use anyhow::{Context, Result, bail};
use tokio::net::TcpListener;

use super::asked_to_stop;
use super::driver::DriverOptions;
use super::folders::{ImagesDir, StateDir, TEMPLATE_KEY, cache_dir, make_private};
use super::http_server;
use super::own_controller;
use super::reach::{Reach, reachable};
use super::ready_file;
use super::state_lock::StateLock;
use super::temporary;
use crate::counted::counted;
use crate::embedded;
use crate::logging::{self, LogFormat};

/// What `serve` takes.
#[derive(clap::Args)]
pub struct Options {
    /// The address of the API and the viewer.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:7070")]
    listen: SocketAddr,
    /// The UDP address for the viewers' media; port 0 picks a free one.
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:0")]
    media_listen: SocketAddr,
    /// Address and port at which viewers reach the media port; may be repeated.
    #[arg(long = "advertise-address", value_name = "ADDRESS:PORT", value_parser = reachable)]
    advertise: Vec<SocketAddr>,
    #[command(flatten)]
    state: StateDir,
    #[command(flatten)]
    images: ImagesDir,
    /// A folder of provider files, which override the shipped ones.
    #[arg(long, value_name = "FOLDER", env = "ANTEROOM_PROVIDERS")]
    providers: Option<PathBuf>,
    #[command(flatten)]
    driver: DriverOptions,
    /// Power on every VM, also where `anteroom image snapshot` made a template of its image.
    #[arg(long)]
    cold: bool,
    /// Clones of each template that wait for a sign-in, loaded and not run yet.
    #[arg(long, value_name = "COUNT", default_value_t = 1)]
    waiting_clones: u16,
    /// A file of services that each sandbox runs in addition to its image's.
    #[arg(long, hide = true)]
    services: Option<PathBuf>,
    /// The operator's name, as the end user sees it.
    #[arg(long, default_value = "the operator of this server")]
    operator_name: String,
    /// The address that browsers use, if not the listening address: `https://signin.example.com`.
    #[arg(long, value_parser = web_origin)]
    public_url: Option<String>,
    /// Concurrent connections from one address (one /64 with IPv6) [default: a quarter of all].
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..))]
    connections_per_address: Option<u16>,
    /// The address that a proxy connects from, to which the limit does not apply: the proxy limits its
    /// own clients. May be repeated.
    #[arg(long, value_name = "ADDRESS")]
    trusted_proxy: Vec<IpAddr>,
    /// Let sign-ins reach every host; used by `anteroom egress learn`.
    #[arg(long, hide = true)]
    learn_egress: bool,
    /// Allow providers with kind = "real" where VMs are emulated or the `host` driver runs without a VM,
    /// neither of which protects this machine from a hostile page or tool.
    #[arg(long)]
    allow_weak_isolation: bool,
    /// Let credentials of this provider go to the vault although its terms allow only the end user to
    /// hold them; may be repeated.
    #[arg(long, value_name = "PROVIDER")]
    allow_vault_custody: Vec<ProviderId>,
    /// Concurrent sign-ins, however much memory is free [default: 16 for each processor].
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..=1024))]
    max_sessions: Option<u16>,
    /// Memory that all sign-ins, templates and waiting clones may take together, in MiB [default: what is free at the start,
    /// without an eighth of this machine's memory, at most 1024].
    #[arg(long, value_name = "MIB", value_parser = clap::value_parser!(u64).range(256..=1 << 30))]
    memory_budget: Option<u64>,
    /// Sign-ins that may wait for capacity; further ones are refused with a Retry-After.
    #[arg(long, default_value_t = 0)]
    max_queued: u16,
    /// The maximum duration of a sign-in, however often its caller extends it.
    #[arg(long, value_name = "SECONDS", default_value_t = 3600,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    max_session_seconds: u64,
    /// How long an end user may be inactive before their sign-in ends.
    #[arg(long, value_name = "SECONDS", default_value_t = 600,
          value_parser = clap::value_parser!(u64).range(1..=86_400))]
    idle_seconds: u64,
    /// Days after which an ended session is deleted, unless it has a credential.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=36_500))]
    keep_days: u64,
    /// Maximum size of all sessions' logs, in MiB; the oldest are deleted first.
    #[arg(long, default_value_t = 1024)]
    keep_logs_mib: u64,
    /// The shortest time to live that a caller may request.
    #[arg(long, hide = true, default_value_t = 60)]
    min_ttl_seconds: u64,
    /// Exit when standard input closes, and remove this folder then; used by `provider test` and
    /// `egress learn`.
    #[arg(long, hide = true)]
    until_end_of_input: Option<PathBuf>,
    /// When ready, write the address and API key as JSON to this file, readable only by its owner. A file
    /// that exists is replaced only if this controller wrote it at an earlier start.
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// The format of the log.
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

/// Runs until Ctrl-C or SIGTERM.
pub fn run(options: Options) -> Result<()> {
    // The database, keys and logs are nobody else's, also in a folder that was there before.
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    logging::start(options.log_format);
    let of_a_command = options.until_end_of_input.clone();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("cannot start")?;
    let served = runtime.block_on(serve(options));
    drop(runtime);
    if let Some(folder) = of_a_command {
        temporary::remove_after_command(&folder);
    }
    served
}

/// Lets this process open as many files as it may: the usual soft limit is below the number of
/// connections that are taken, and a controller without descriptors cannot even look for leftovers.
fn raise_file_limit() {
    use nix::sys::resource::{Resource, getrlimit, setrlimit};
    let raised = getrlimit(Resource::RLIMIT_NOFILE)
        .and_then(|(_, hard)| setrlimit(Resource::RLIMIT_NOFILE, hard, hard));
    if let Err(error) = raised {
        tracing::warn!("cannot raise the limit of open files: {error}");
    }
}

async fn serve(options: Options) -> Result<()> {
    raise_file_limit();
    let is_of_a_command = options.until_end_of_input.is_some();
    let ready_file = options.ready_file.clone();
    let reach = Reach {
        listen: options.listen,
        media_listen: options.media_listen,
        advertise: &options.advertise,
        public_url: options.public_url.as_deref(),
        trusted_proxies: &options.trusted_proxy,
    };
    for warning in reach.check()? {
        tracing::warn!("{warning}");
    }
    let per_address = options.connections_per_address.map(usize::from);
    let limits = http_server::Limits::new(per_address, options.trusted_proxy.clone());
    let (settings, node) = settings(options)?;
    let (images, accelerator) = (settings.images(), node.driver.accelerator());
    let warnings = [
        settings.weak_isolation(accelerator),
        node.unfit_images(images.iter().map(String::as_str)),
        settings.overridden_terms(),
    ];
    for warning in warnings.into_iter().flatten() {
        tracing::warn!("{warning}");
    }
    let _only = StateLock::take(&settings.state_dir)?;
    let listener = TcpListener::bind(settings.listen).await.with_context(|| {
        format!("cannot listen on {}; choose another address with --listen", settings.listen)
    })?;
    let bound = listener.local_addr()?;
    let (state_dir, max_sessions) = (settings.state_dir.clone(), settings.limits.max_sessions);
    let store = SqliteStore::open(&state_dir.join(DATABASE)).await?;
    let controller = Controller::open(settings, LocalNode::open(node)?, store, bound).await?;
    let origin = controller.origin().to_owned();
    let mut hosts =
        AllowedHosts::default().with_origin(&origin).with_origin(&format!("http://{bound}"));
    // Who listens on all addresses is at home on this machine too.
    if bound.ip().is_loopback() || bound.ip().is_unspecified() {
        for name in ["localhost", "127.0.0.1"] {
            hosts = hosts.with_origin(&format!("http://{name}:{}", bound.port()));
        }
    }
    if let Some(path) = &ready_file {
        ready_file::check(path, &controller).await?;
    }
    let app = router(controller.clone(), hosts);
    show_first_key(&controller, &state_dir).await?;
    let url = format!("http://{bound}");
    controller.serve_command_line(&state_dir.join(own_controller::FILE), &url).await?;
    if let Some(path) = &ready_file {
        ready_file::write(path, &controller, &url).await?;
    }
    let sign_ins = counted(max_sessions, "sign-in", "sign-ins");
    tracing::info!(
        "at most {sign_ins} at a time (--max-sessions), in {} MiB of memory (--memory-budget)",
        controller.memory_budget_bytes() >> 20
    );
    tracing::info!("listening on http://{bound}, media on UDP {}", controller.media_address());
    tracing::info!(
        "at most {} from one address at a time (--connections-per-address)",
        counted(limits.per_peer(), "connection", "connections")
    );
    let serving = tokio::spawn(http_server::serve(listener, app, limits));
    tokio::select! {
        asked = asked_to_stop() => asked?,
        () = temporary::command_ended(), if is_of_a_command => {}
    }
    tracing::info!("ending all sessions; press Ctrl-C again to exit immediately");
    tokio::select! {
        () = controller.end_all() => {}
        again = asked_to_stop() => again?,
    }
    // Event streams would go on for ever; what matters is done.
    serving.abort();
    Ok(())
}

/// What was chosen for the controller, and for the node on this machine.
fn settings(options: Options) -> Result<(Settings, NodeSettings)> {
    let (least, most) = (options.min_ttl_seconds, options.max_session_seconds);
    if most < least {
        bail!(
            "--max-session-seconds is {most}, but a sign-in's time to live is at least {least} s; pass {least} or more"
        );
    }
    let state_dir = options.state.path();
    make_private(&state_dir)?;
    // Before the lock and the key of templates, which are in it.
    private::check_state(&state_dir)?;
    let cache_dir = cache_dir();
    let images_dir = options.images.path();
    // What lies there is run, or trusted because it was looked at before.
    private::check_used(&[&cache_dir, &images_dir])?;
    if let Some(providers) = &options.providers {
        // They say what is run, and which files come out of a credential on its owner's machine.
        private::check_texts(providers)?;
    }
    let driver = options.driver.choose(&cache_dir)?;
    let providers = Providers::open(&embedded::providers(), options.providers.as_deref())?;
    let offered = providers.now();
    for id in &options.allow_vault_custody {
        check_override(id, &offered)?;
    }
    let templates = match &driver {
        DriverChoice::Vm(vm) if !options.cold => Some(TemplateSettings {
            key: Arc::new(MachineKey::load_or_create(&state_dir.join(TEMPLATE_KEY))?),
            host: Host::here(&vm.vmm, embedded::agent()?),
            screen: SCREEN,
            usual: offered
                .values()
                .map(|one| (one.image.clone(), one.egress.extra_ca_pem.clone()))
                .collect(),
        }),
        DriverChoice::Vm(_) | DriverChoice::Host { .. } => None,
    };
    let max_sessions = options.max_sessions.map_or_else(usual_sessions, usize::from);
    let node = NodeSettings {
        media_listen: options.media_listen,
        advertise: options.advertise,
        state_dir: state_dir.clone(),
        images_dir,
        cache_dir,
        services: options.services.as_deref().map(read_services).transpose()?.unwrap_or_default(),
        runner_environment: logging::for_runner(options.log_format),
        host: HostCapabilities::here(driver.program().as_deref()),
        driver,
        memory_budget_bytes: options.memory_budget.map(|mib| mib << 20),
        templates,
        waiting_clones: options.waiting_clones.into(),
    };
    let settings = Settings {
        limits: Limits { max_sessions, max_queued: options.max_queued.into() },
        keep: Keep {
            days: options.keep_days,
            log_bytes: options.keep_logs_mib.saturating_mul(1024 * 1024),
        },
        max_session_seconds: options.max_session_seconds,
        idle_seconds: options.idle_seconds,
        listen: options.listen,
        operator_name: options.operator_name,
        public_url: options.public_url,
        learn_egress: options.learn_egress,
        allow_weak_isolation: options.allow_weak_isolation,
        min_ttl_seconds: options.min_ttl_seconds,
        vault_custody: options.allow_vault_custody.into_iter().collect(),
        providers: Arc::new(providers),
        viewer_file: embedded::viewer_file,
        state_dir,
    };
    Ok((settings, node))
}

/// An override that changes nothing is most likely a mistake.
fn check_override(id: &ProviderId, offered: &BTreeMap<ProviderId, Provider>) -> Result<()> {
    let forbids = |provider: &Provider| {
        let terms = provider.terms.as_ref();
        terms.is_some_and(|terms| terms.custody == Custody::RecipientOnly)
    };
    match offered.get(id) {
        Some(provider) if forbids(provider) => Ok(()),
        Some(_) => bail!("the terms of {id} allow the vault; remove --allow-vault-custody {id}"),
        None => {
            let forbidding = offered.iter().filter(|(_, provider)| forbids(provider));
            let names: Vec<&str> = forbidding.map(|(id, _)| id.as_str()).collect();
            bail!(
                "--allow-vault-custody names the provider {id}, which does not exist; those whose terms forbid the vault are {}",
                names.join(", ")
            )
        }
    }
}

/// `[[services]]` as in a recipe.
fn read_services(path: &Path) -> Result<Vec<ServiceSpec>> {
    #[derive(serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct File {
        services: Vec<ServiceSpec>,
    }
    let text =
        private::read_text(path).with_context(|| format!("reading {} failed", path.display()))?;
    let file: File = toml::from_str(&text)
        .with_context(|| format!("cannot read the services in {}", path.display()))?;
    anteroom_image::check_services(&file.services).map_err(|problem| {
        anyhow::anyhow!("the services in {} are not valid: {problem}", path.display())
    })?;
    Ok(file.services)
}

/// A URL that names an origin and nothing else, as browsers write it.
fn web_origin(text: &str) -> Result<String, String> {
    const FORM: &str =
        "it must be http:// or https://, a host and an optional port, and nothing else";
    let url = url::Url::parse(text).map_err(|error| format!("{error}; {FORM}"))?;
    let is_bare = url.path() == "/" && url.query().is_none() && url.fragment().is_none();
    let is_anonymous = url.username().is_empty() && url.password().is_none();
    if !matches!(url.scheme(), "http" | "https") || !is_bare || !is_anonymous {
        return Err(FORM.into());
    }
    Ok(url.origin().ascii_serialization())
}

/// Creates the first key, once for each state folder. It is printed only on a terminal: a journal or a
/// file would store it.
async fn show_first_key(
    controller: &Controller<impl Node, impl Store>,
    state_dir: &Path,
) -> Result<()> {
    let failed = |problem: Problem| anyhow::anyhow!(problem.detail);
    let keys = controller.keys();
    if !keys.list().await.map_err(failed)?.is_empty() {
        return Ok(());
    }
    let made = keys.add("first", KeyRole::Caller, &Actor::Operator {}).await;
    let MadeKey { key, .. } = made.map_err(failed)?;
    if std::io::stdout().is_terminal() {
        anstream::println!("API key (shown this once): {key}");
        return Ok(());
    }
    let path = state_dir.join("first-key.txt");
    private::write(&path, format!("{key}\n").as_bytes())?;
    let path = path.display();
    tracing::info!(
        "the first API key is in {path}; copy it to where it is needed, then delete the file"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_public_url_is_an_origin_as_browsers_write_it() {
        assert_eq!(web_origin("https://Example.com:443/").unwrap(), "https://example.com");
        assert_eq!(web_origin("http://[::1]:7070").unwrap(), "http://[::1]:7070");
        for odd in
            ["nonsense", "", "http://", "ftp://x", "https://x/path", "https://u@x", "https://x?y"]
        {
            assert!(web_origin(odd).is_err(), "{odd}");
        }
    }
}
