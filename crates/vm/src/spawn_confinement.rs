//! How a sandbox's process is confined, from its first instruction on.

use std::ffi::{CStr, CString};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anteroom_confine::{
    Account, Cgroup, Confinement, Enclosure, FileAccess, Limits, Rules, SessionUser, VmmCalls,
    VmmSockets, parts_of,
};
use nix::fcntl::{OFlag, open};
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::Signal;
use nix::sys::stat::Mode;
use nix::unistd::{Gid, setsid, write};

use crate::spawn_step::{Step, failed_step};
use crate::{BootError, SandboxName};

/// How far a sandbox's processes stand back behind the controller and the runners (nice(2)).
const NICENESS: i32 = 10;

/// The device that executes guest code.
const KVM: &str = "/dev/kvm";

/// What is done to a process between fork and exec.
pub struct SpawnConfinement {
    user: Option<SessionUser>,
    groups: Vec<Gid>,
    entrances: Vec<CString>,
    enclosure: Option<Enclosure>,
    account: Option<Account>,
    rules: Option<Rules>,
    calls: Option<VmmCalls>,
    gains_privileges: bool,
    /// The process's cgroup.
    pub cgroup: Option<OwnedCgroup>,
}

/// A VMM, by what it needs of the machine.
pub struct Vmm<'a> {
    /// Its program.
    pub program: &'a Path,
    /// Files that it opens by path.
    pub files: Vec<PathBuf>,
    /// Whether it opens /dev/kvm.
    pub uses_kvm: bool,
    /// A folder that it makes sockets in: one of its own file tree, which is made then, or without such a
    /// tree one that is there.
    pub sockets: Option<&'a Path>,
    /// What it may take.
    pub limits: Limits,
}

/// A cgroup that goes when this does: only root can, so that a runner leaves it to its controller.
pub struct OwnedCgroup {
    pub cgroup: Cgroup,
    pub limits: Limits,
}

impl Drop for OwnedCgroup {
    fn drop(&mut self) {
        let _ = self.cgroup.remove();
    }
}

impl SpawnConfinement {
    /// For a VMM.
    ///
    /// # Errors
    /// When a part of it cannot be made.
    pub fn vmm(
        name: &SandboxName,
        confinement: &Confinement,
        vmm: Vmm<'_>,
    ) -> Result<Self, BootError> {
        let Vmm { program, files, uses_kvm, sockets, limits } = vmm;
        let cgroup = match confinement.host.cgroups.is_available() {
            true => {
                let cgroup = Cgroup::make(name.as_str(), &limits)?;
                Some(OwnedCgroup { cgroup, limits })
            }
            false => None,
        };
        let entrances = cgroup.iter().flat_map(|held| held.cgroup.entrances());
        let entrances = entrances.map(|path| CString::new(path.as_os_str().as_bytes()));
        let entrances = entrances
            .collect::<Result<_, _>>()
            .map_err(io::Error::other)
            .map_err(BootError::system("naming the cgroup"))?;
        let devices: &[&Path] = if uses_kvm { &[Path::new(KVM)] } else { &[] };
        let enclosure = confinement
            .enclosed()
            .map(|user| Enclosure::for_program(program, devices, sockets, user))
            .transpose()
            .map_err(BootError::system("making the VM's file tree"))?;
        let rules = match enclosure {
            Some(_) => None,
            None => Some(file_rules(program, files, devices, sockets)?),
        };
        let groups = if enclosure.is_none() && uses_kvm { kvm_group() } else { Vec::new() };
        let unix = if sockets.is_some() { VmmSockets::Unix } else { VmmSockets::None };
        let calls = VmmCalls::filter(unix)
            .map_err(io::Error::other)
            .map_err(BootError::system("making the filter of the VM's system calls"))?;
        let user = confinement.user;
        Ok(Self {
            user,
            groups,
            entrances,
            enclosure,
            account: None,
            rules,
            calls: Some(calls),
            gains_privileges: false,
            cgroup,
        })
    }

    /// For an agent on this machine: its user alone, and an account of that.
    pub fn agent(user: Option<SessionUser>, account: Option<Account>) -> Self {
        Self {
            user,
            account,
            groups: Vec::new(),
            entrances: Vec::new(),
            enclosure: None,
            rules: None,
            calls: None,
            // Chromium's own sandbox may be a program of root's.
            gains_privileges: true,
            cgroup: None,
        }
    }

    /// Starts the command so held, as the leader of a kernel session and a process group, killed by the kernel when the
    /// thread that starts it ends: the runner has only one that starts anything, so that is the runner's death,
    /// `kill -9` included.
    ///
    /// # Errors
    /// When it does not start.
    pub fn spawn(
        self,
        mut command: Command,
    ) -> Result<(tokio::process::Child, Option<OwnedCgroup>), BootError> {
        let Self {
            user,
            groups,
            entrances,
            enclosure,
            account,
            mut rules,
            calls,
            gains_privileges,
            cgroup,
        } = self;
        let has_namespaces = enclosure.is_some();
        let (steps, failed) = failed_step().map_err(BootError::system("starting a process"))?;
        // SAFETY: in the child only system calls are made, whose arguments were made before.
        #[expect(unsafe_code, reason = "pre_exec runs between fork and exec")]
        unsafe {
            command.pre_exec(move || {
                // A kernel session of its own, not only a group: within one, anybody may continue
                // anybody (kill(2)).
                steps.check(Step::Session, setsid().map(drop))?;
                let entered = entrances.iter().try_for_each(|file| go_in(file.as_c_str()));
                steps.check(Step::Cgroup, entered)?;
                if let Some(enclosure) = &enclosure {
                    steps.check(Step::Enclosure, enclosure.enter())?;
                }
                if let Some(account) = &account {
                    steps.check(Step::Account, account.enter())?;
                }
                steps.check(Step::Limits, setrlimit(Resource::RLIMIT_CORE, 0, 0))?;
                // Sandboxes that start take every core they get; the processes that watch them come first.
                // Refused it changes nothing else.
                nix::libc::setpriority(nix::libc::PRIO_PROCESS, 0, NICENESS);
                if let Some(user) = user {
                    steps.check(Step::User, user.assume(&groups))?;
                }
                leave_keyring();
                // After the user: another one clears it.
                steps.check(Step::Privileges, prctl::set_pdeathsig(Signal::SIGKILL))?;
                if !gains_privileges {
                    steps.check(Step::Privileges, prctl::set_no_new_privs())?;
                }
                if let Some(rules) = rules.take() {
                    steps.check(Step::Files, rules.restrict().map(drop))?;
                }
                // Last: what is done above is among what it refuses.
                steps.check(Step::SystemCalls, calls.as_ref().map_or(Ok(()), VmmCalls::refuse))
            });
        }
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true);
        // The command holds the child's ends of the sockets: closed with it, their end is the child's.
        let mut spawn = move || command.spawn();
        let spawned = match has_namespaces {
            true => Enclosure::own_pid_namespace(spawn).flatten(),
            false => spawn(),
        };
        let child = spawned.map_err(|error| failed.name(error))?;
        Ok((child, cgroup))
    }
}

/// Goes into a session keyring of its own: whoever has a process's keyring reads the keys in it,
/// whatever its user (keyrings(7)), and the operator's may hold tickets and disk keys. Where the kernel
/// has no keys there is none to leave.
fn leave_keyring() {
    let nameless = std::ptr::null::<nix::libc::c_char>();
    // SAFETY: a system call that is given no name.
    #[expect(unsafe_code, reason = "neither the C library nor nix has this call")]
    unsafe {
        nix::libc::syscall(nix::libc::SYS_keyctl, nix::libc::KEYCTL_JOIN_SESSION_KEYRING, nameless)
    };
}

fn go_in(entrance: &CStr) -> nix::Result<()> {
    let file = open(entrance, OFlag::O_WRONLY | OFlag::O_CLOEXEC, Mode::empty())?;
    // The kernel's word for the process that writes it.
    write(&file, b"0")?;
    Ok(())
}

fn file_rules(
    program: &Path,
    files: Vec<PathBuf>,
    devices: &[&Path],
    sockets: Option<&Path>,
) -> Result<Rules, BootError> {
    let runs = parts_of(program).map_err(BootError::system("looking for the VM's program"))?;
    let access = FileAccess {
        reads: files.into_iter().chain(["/proc", "/dev"].map(PathBuf::from)).collect(),
        runs,
        writes: devices.iter().map(|path| path.to_path_buf()).collect(),
        makes_sockets: sockets.map(Path::to_path_buf).into_iter().collect(),
        connects: false,
        signals: false,
    };
    access
        .rules()
        .map_err(|error| io::Error::other(error.to_string()))
        .map_err(BootError::system("limiting what the VMM may open"))
}

/// The group that may open /dev/kvm, unless that is root's.
fn kvm_group() -> Vec<Gid> {
    let device = std::fs::metadata(KVM).map(|device| device.gid());
    device.into_iter().filter(|group| *group != 0).map(Gid::from_raw).collect()
}

#[cfg(test)]
mod tests {
    use std::process::Stdio;

    use nix::libc;

    use super::*;

    /// Plays a VMM that a guest has taken over: it makes calls, and prints each one's error, then what
    /// holds it.
    async fn said_by_a_vmm(
        confinement: &Confinement,
        sockets: Option<&Path>,
        calls: &[(i64, &str)],
    ) -> String {
        let made = calls.iter().map(|(number, rest)| {
            format!(
                "print syscall({number}, {rest}) < 0 && $!{{EPERM}} ? 'refused' : 'done', \"\\n\";"
            )
        });
        let script = format!("{} exec 'cat', '/proc/self/status'", made.collect::<String>());
        let program = Path::new("/usr/bin/perl");
        let limits = Limits { memory_bytes: 64 << 20, pids: 8, cpus: 1 };
        let name = SandboxName::of_test();
        let vmm = Vmm { program, files: vec![], uses_kvm: false, sockets, limits };
        let confined = SpawnConfinement::vmm(&name, confinement, vmm).unwrap();
        let mut command = Command::new(program);
        command.args(["-e", &format!("$| = 1; {script}")]).stdout(Stdio::piped());
        let (child, _cgroup) = confined.spawn(command).unwrap();
        String::from_utf8(child.wait_with_output().await.unwrap().stdout).unwrap()
    }

    #[tokio::test]
    async fn a_vmm_is_refused_the_calls_that_qemu_s_own_filter_lets_through() {
        let here = Confinement::of_this_machine(None);
        // Also as whoever runs Anteroom, where nothing else holds it.
        let bare = Confinement { user: None, ..here.clone() };
        let calls = [
            (libc::SYS_io_uring_setup, "0, 0"),
            // Which keyring the session has.
            (libc::SYS_keyctl, "0, -3, 0"),
            // Of this process's own faults, for which no right is asked.
            (libc::SYS_userfaultfd, "1"),
            (libc::SYS_socket, "40, 1, 0"),
            (libc::SYS_socket, "2, 2, 0"),
        ];
        for confinement in [here, bare] {
            let said = said_by_a_vmm(&confinement, None, &calls).await;
            let answers: Vec<_> = said.lines().take(calls.len()).collect();
            assert_eq!(answers, ["refused"; 5], "{said}");
            assert!(said.contains("Seccomp:\t2") && said.contains("NoNewPrivs:\t1"), "{said}");
        }
    }

    #[tokio::test]
    async fn a_vmm_that_makes_sockets_makes_those_of_unix_alone() {
        let here = Confinement::of_this_machine(None);
        let calls = [
            (libc::SYS_socket, "1, 1, 0"),
            (libc::SYS_socket, "2, 1, 0"),
            (libc::SYS_socket, "40, 1, 0"),
            (libc::SYS_socketpair, "2, 1, 0, 0"),
        ];
        let said = said_by_a_vmm(&here, Some(Path::new("/run")), &calls).await;
        let answers: Vec<_> = said.lines().take(calls.len()).collect();
        assert_eq!(answers, ["done", "refused", "refused", "refused"], "{said}");
    }

    /// A step that fails is named, and its cgroup goes.
    #[tokio::test]
    async fn a_file_tree_that_cannot_be_made_is_named() {
        let confinement = Confinement::of_this_machine(None);
        if confinement.enclosed().is_none() {
            eprintln!("there are no namespaces to give");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("vmm");
        std::fs::copy("/bin/true", &program).unwrap();
        let limits = Limits { memory_bytes: 64 << 20, pids: 8, cpus: 1 };
        let name = SandboxName::of_test();
        let vmm = Vmm { program: &program, files: vec![], uses_kvm: false, sockets: None, limits };
        let confined = SpawnConfinement::vmm(&name, &confinement, vmm).unwrap();
        std::fs::remove_file(&program).unwrap();
        let error = confined.spawn(Command::new(&program)).err().unwrap();
        assert!(
            error.to_string().starts_with("giving the VM namespaces and a file tree of its own"),
            "{error}"
        );
        let identity = crate::SandboxIdentity { name: &name, user: confinement.user };
        let left = crate::leftovers(identity, &[], Path::new(""));
        assert!(left.is_empty(), "{left:?}");
    }

    /// Only root has namespaces to give.
    #[tokio::test]
    async fn what_an_agent_shares_by_the_kernel_s_numbers_goes_with_it() {
        let confinement = Confinement::of_this_machine(None);
        let Some(user) = confinement.enclosed() else { return };
        let folder = tempfile::tempdir().unwrap();
        let account = Account::write(folder.path(), folder.path(), user).unwrap();
        let script = "print defined && $_ >= 0 ? 'made' : $! for shmget(0, 64, 01600), \
                      semget(0, 1, 01600), msgget(0, 01600), \
                      syscall(240, \"anteroom-test-$<\", 0102, 0600, 0)";
        let mut command = Command::new("/usr/bin/perl");
        command.args(["-e", script]).stdout(Stdio::piped());
        let (child, _) = SpawnConfinement::agent(Some(user), Some(account)).spawn(command).unwrap();
        let made = child.wait_with_output().await.unwrap().stdout;
        assert_eq!(String::from_utf8(made).unwrap(), "made".repeat(4));
        let id = user.id().to_string();
        for kind in ["shm", "sem", "msg"] {
            let list = std::fs::read_to_string(format!("/proc/sysvipc/{kind}")).unwrap();
            let is_its = |line: &str| line.split_whitespace().any(|field| field == id);
            assert!(!list.lines().any(is_its), "{kind}: {list}");
        }
        assert!(!Path::new(&format!("/dev/mqueue/anteroom-test-{id}")).exists());
    }

    /// The thread has a keyring of its own first, not to leave a key in the tester's.
    #[tokio::test]
    async fn a_sandbox_has_none_of_the_operator_s_keys() {
        leave_keyring();
        let (kind, name) = (c"user", c"anteroom-test-of-the-operator");
        // SAFETY: all pointers are to values that live here, and the length is the third's.
        #[expect(unsafe_code, reason = "neither the C library nor nix has this call")]
        let key = unsafe {
            nix::libc::syscall(
                nix::libc::SYS_add_key,
                kind.as_ptr(),
                name.as_ptr(),
                b"secret".as_ptr(),
                6,
                nix::libc::KEY_SPEC_SESSION_KEYRING,
            )
        };
        if key < 0 {
            eprintln!("this kernel keeps no keys here");
            return;
        }
        // For whoever has it alone: the child is of the same user, who would see it otherwise.
        // SAFETY: only numbers.
        #[expect(unsafe_code, reason = "neither the C library nor nix has this call")]
        let set = unsafe {
            let possessor: u32 = 0x3f00_0000;
            nix::libc::syscall(nix::libc::SYS_keyctl, nix::libc::KEYCTL_SETPERM, key, possessor)
        };
        assert_eq!(set, 0);
        let keys = || {
            let mut command = Command::new("cat");
            command.arg("/proc/keys").stdout(std::process::Stdio::piped());
            command
        };
        let has = |output: &[u8]| String::from_utf8_lossy(output).contains("anteroom-test-of");
        assert!(has(&keys().output().unwrap().stdout));
        let (child, _) = SpawnConfinement::agent(None, None).spawn(keys()).unwrap();
        assert!(!has(&child.wait_with_output().await.unwrap().stdout));
    }
}
