//! System calls that no VMM makes, refused by seccomp from its first instruction on.
//!
//! QEMU's own filter (`-sandbox`) denies what it never makes, and starts after its set-up; it lets
//! through much that breaks out of kernels: io_uring, keyrings, userfaultfd, every family of sockets.
//! What is here is answered with EPERM before any filter of the VMM's own is asked, and stays so.

use std::io;

use nix::libc;
use seccompiler::{BpfProgram, SeccompAction, SeccompFilter, sock_filter};

use crate::syscalls::{Argument, SystemCallError, rules_of};

/// Sockets that a VMM may open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VmmSockets {
    /// None: what it has of them are descriptors already.
    None,
    /// Those of the Unix family, whose paths its file tree bounds.
    Unix,
}

/// Refuses the calls, once it is put in force. Made before a fork, set after it.
#[derive(Clone, Debug)]
pub struct VmmCalls(BpfProgram);

impl VmmCalls {
    /// The filter.
    ///
    /// # Errors
    /// When it is not well formed, or this architecture is unknown.
    pub fn filter(sockets: VmmSockets) -> Result<Self, SystemCallError> {
        let denied = SeccompAction::Errno(libc::EPERM as u32);
        let architecture = std::env::consts::ARCH.try_into()?;
        let mut rules = rules_of(DENIED, DENIED_FORMS)?;
        rules.extend(match sockets {
            VmmSockets::None => rules_of(&SOCKET_CALLS, &[])?,
            VmmSockets::Unix => rules_of(&[], &SOCKET_CALLS.map(|call| (call, NOT_UNIX)))?,
        });
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, denied, architecture)?;
        let filter: BpfProgram = filter.try_into()?;
        // Which comes first, and falls through to the other: jumps are relative.
        Ok(Self(absent().into_iter().chain(filter).collect()))
    }

    /// Filters the calls of this thread and all that it starts from now on, and gives up new
    /// privileges. Only system calls.
    ///
    /// # Errors
    /// When the kernel refuses: the process must not go on then.
    pub fn refuse(&self) -> io::Result<()> {
        seccompiler::apply_filter(&self.0).map_err(|error| match error {
            seccompiler::Error::Prctl(error) | seccompiler::Error::Seccomp(error) => error,
            _ => io::ErrorKind::InvalidInput.into(),
        })
    }
}

/// Answered with ENOSYS, as by a kernel that lacks them: the forms of the calls of x86-64's x32, which
/// would all go by other numbers, and clone3, whose flags a filter cannot read; the C library falls
/// back to clone.
#[expect(
    clippy::cast_possible_truncation,
    reason = "instructions' codes are 16 bits, numbers of calls 32"
)]
fn absent() -> [sock_filter; 4] {
    const X32: u32 = 0x4000_0000;
    let instruction = |code: u32, jt, jf, k| sock_filter { code: code as u16, jt, jf, k };
    [
        // The call's number (seccomp(2), struct seccomp_data).
        instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0),
        instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, 1, 0, X32),
        instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_clone3 as u32),
        instruction(
            libc::BPF_RET | libc::BPF_K,
            0,
            0,
            libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32,
        ),
    ]
}

/// A new namespace of this kind, by clone.
macro_rules! in_new {
    ($flag:expr) => {
        &[Argument::HasBits(0, $flag as u64)]
    };
}

/// Calls that are refused in these forms.
const DENIED_FORMS: &[(i64, &[&[Argument]])] = &[(
    libc::SYS_clone,
    &[
        in_new!(libc::CLONE_NEWNS),
        in_new!(libc::CLONE_NEWUSER),
        in_new!(libc::CLONE_NEWPID),
        in_new!(libc::CLONE_NEWNET),
        in_new!(libc::CLONE_NEWIPC),
        in_new!(libc::CLONE_NEWUTS),
        in_new!(libc::CLONE_NEWCGROUP),
    ],
)];

/// Sockets reach the services of this machine too.
const SOCKET_CALLS: [i64; 2] = [libc::SYS_socket, libc::SYS_socketpair];

/// Of any other family.
const NOT_UNIX: &[&[Argument]] = &[&[Argument::IsNot(0, libc::AF_UNIX as u64)]];

/// Calls that are refused.
const DENIED: &[i64] = &[
    // Work that the kernel does aside, past this filter.
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    // Keyrings, which have no namespace.
    libc::SYS_add_key,
    libc::SYS_request_key,
    libc::SYS_keyctl,
    // Programs in the kernel, and watching it.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_userfaultfd,
    libc::SYS_fanotify_init,
    libc::SYS_fanotify_mark,
    libc::SYS_syslog,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_process_mrelease,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    libc::SYS_move_pages,
    libc::SYS_migrate_pages,
    // Kernels and their modules.
    libc::SYS_kexec_load,
    libc::SYS_kexec_file_load,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_reboot,
    // File trees and namespaces.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_open_tree,
    libc::SYS_move_mount,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_unshare,
    libc::SYS_setns,
    libc::SYS_name_to_handle_at,
    libc::SYS_open_by_handle_at,
    libc::SYS_quotactl,
    libc::SYS_quotactl_fd,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    // Memory and messages that outlive a process.
    libc::SYS_shmget,
    libc::SYS_semget,
    libc::SYS_msgget,
    libc::SYS_mq_open,
    libc::SYS_memfd_secret,
    // The machine's name and clock.
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_iopl,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_ioperm,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_modify_ldt,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_uselib,
];

#[cfg(test)]
mod tests {
    use nix::errno::Errno;

    use super::*;

    /// Its error, with arguments that the kernel takes for wrong ones.
    fn call(number: i64, first: i64) -> Errno {
        // SAFETY: no call does anything with these: there is no such address, descriptor or process.
        #[expect(unsafe_code, reason = "calls that no library makes")]
        let answer =
            unsafe { libc::syscall(number, first, -1_i64, -1_i64, -1_i64, -1_i64, -1_i64) };
        if answer == -1 { Errno::last() } else { Errno::from_raw(0) }
    }

    /// In a process of its own: a filter stays for ever.
    #[test]
    #[ignore = "started by the next test"]
    fn filtered() {
        VmmCalls::filter(VmmSockets::None).unwrap().refuse().unwrap();
        for number in DENIED.iter().chain(&SOCKET_CALLS) {
            assert_eq!(call(*number, -1), Errno::EPERM, "call {number}");
        }
        for flag in [libc::CLONE_NEWUSER, libc::CLONE_NEWNS, libc::CLONE_NEWNET] {
            // Of the flags that the kernel refuses together, had it been asked.
            let flags = flag | libc::CLONE_THREAD;
            assert_eq!(call(libc::SYS_clone, flags.into()), Errno::EPERM, "flag {flag:x}");
        }
        assert_eq!(call(libc::SYS_clone3, -1), Errno::ENOSYS);
        // Of x32: its getpid.
        #[cfg(target_arch = "x86_64")]
        assert_eq!(call(0x4000_0000 + libc::SYS_getpid, 0), Errno::ENOSYS);
        // What a VMM does.
        std::thread::spawn(|| std::fs::read("/proc/self/status").unwrap()).join().unwrap();
        assert!(std::process::Command::new("/bin/true").status().unwrap().success());
        println!("the filter holds");
    }

    #[test]
    fn what_no_vmm_does_is_refused_and_the_rest_is_not() {
        crate::syscalls::tests::passes_in_a_process_of_its_own("vmm_calls::tests::filtered");
    }
}
