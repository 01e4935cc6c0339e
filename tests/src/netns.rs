//! A pod's network without Kubernetes: two namespaces, a cable between them, both IP families.
//!
//! A namespace lives as long as its handle and has no name on the machine, so nothing is left
//! behind. Work in a namespace is done by a thread that enters it; who it is done as, a
//! [`Persona`] says. Everything here needs root and fails, rather than skips, without it.

use std::fs::File;
use std::io::{self, Error};
use std::os::fd::AsRawFd as _;
use std::process::{Command, Output};
use std::sync::Arc;
use std::thread;

use nix::sched::{CloneFlags, setns, unshare};
use rustix::thread::{
    CapabilitySet, CapabilitySets, Gid, Uid, set_capabilities, set_no_new_privs, set_thread_groups,
    set_thread_res_gid, set_thread_res_uid,
};

/// The pod's addresses on its first interface.
pub const POD_V4: &str = "10.77.0.2";
/// IPv6.
pub const POD_V6: &str = "fd77::2";
/// The neighbour, who plays the rest of the world.
pub const WORLD_V4: &str = "10.77.0.1";
/// IPv6.
pub const WORLD_V6: &str = "fd77::1";
/// Every interface of the pod has a hardware address that begins so: what comes from it left the
/// pod.
pub const POD_MAC: [u8; 5] = [0x02, 0x65, 0x78, 0x65, 0x00];

/// A network namespace.
#[derive(Clone, Debug)]
pub struct Namespace {
    handle: Arc<File>,
}

/// A pod and the world around it.
#[derive(Clone, Debug)]
pub struct Pod {
    /// Where agent and gate are.
    pub inside: Namespace,
    /// Where the pod's cable ends.
    pub outside: Namespace,
}

/// Who does something in a namespace.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Persona {
    /// Root with everything: the test itself, and init.
    Root,
    /// UID 1000, no capability, no new privileges: a container under PodSecurity `restricted`.
    Agent,
    /// Root with the capabilities that container engines give by default.
    DefaultRoot,
}

// === impl Namespace ===

impl Namespace {
    /// A new one with loopback up.
    pub fn new() -> io::Result<Self> {
        let handle = thread::spawn(|| -> io::Result<File> {
            unshare(CloneFlags::CLONE_NEWNET).map_err(|errno| {
                Error::other(format!(
                    "this test makes network namespaces and needs root: {errno}"
                ))
            })?;
            File::open("/proc/thread-self/ns/net")
        })
        .join()
        .map_err(|_| Error::other("the thread that makes a namespace ended early"))??;
        let namespace = Self {
            handle: Arc::new(handle),
        };
        namespace.ip("link set lo up")?;
        Ok(namespace)
    }

    /// Does something in it, in a thread of its own.
    pub fn run<T: Send>(&self, persona: Persona, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            scope
                .spawn(|| {
                    setns(&*self.handle, CloneFlags::CLONE_NEWNET)?;
                    persona.become_it()?;
                    Ok(work())
                })
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Runs a program in it as root and requires success.
    pub fn command(&self, program: &str, arguments: &[&str]) -> io::Result<String> {
        let output = self.output(program, arguments)?;
        if output.status.success() {
            Ok(String::from_utf8_lossy(&output.stdout).into_owned())
        } else {
            let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
            Err(Error::other(format!(
                "{program} {arguments:?}: {complaint}"
            )))
        }
    }

    /// Runs a program in it as root.
    pub fn output(&self, program: &str, arguments: &[&str]) -> io::Result<Output> {
        self.run(Persona::Root, || {
            Command::new(program).args(arguments).output()
        })?
    }

    /// `ip` with words.
    pub fn ip(&self, words: &str) -> io::Result<()> {
        self.command("ip", &words.split(' ').collect::<Vec<_>>())
            .map(drop)
    }

    /// A path that `ip link` and container runtimes understand, while this handle lives.
    #[must_use]
    pub fn path(&self) -> String {
        format!(
            "/proc/{}/fd/{}",
            std::process::id(),
            self.handle.as_raw_fd()
        )
    }
}

// === impl Pod ===

impl Pod {
    /// Two namespaces and a cable. The world answers for every address there is.
    pub fn new() -> io::Result<Self> {
        let pod = Self {
            inside: Namespace::new()?,
            outside: Namespace::new()?,
        };
        pod.cable(0)?;
        for (namespace, v4, v6) in [
            (&pod.inside, POD_V4, POD_V6),
            (&pod.outside, WORLD_V4, WORLD_V6),
        ] {
            namespace.ip(&format!("addr add {v4}/24 dev eth0"))?;
            namespace.ip(&format!("addr add {v6}/64 dev eth0 nodad"))?;
        }
        pod.inside
            .ip(&format!("route add default via {WORLD_V4}"))?;
        pod.inside
            .ip(&format!("-6 route add default via {WORLD_V6}"))?;
        // The neighbour that link-local attempts are made at.
        pod.outside.ip("addr add fe80::1/64 dev eth0 nodad")?;
        // Anything that leaves is received, whatever its destination. In the main table: the local
        // one is asked first, and would keep the way back to the pod from being found.
        pod.outside
            .ip("route add local default dev lo table main")?;
        pod.outside
            .ip("-6 route add local default dev lo table main")?;
        // As container engines do: ping sockets for everybody.
        pod.inside.run(Persona::Root, || {
            std::fs::write("/proc/sys/net/ipv4/ping_group_range", "0 2147483647")
        })??;
        Ok(pod)
    }

    /// One more cable between the two, both ends named `eth<index>`.
    pub fn cable(&self, index: u8) -> io::Result<()> {
        let name = format!("eth{index}");
        let maker: Vec<String> = POD_MAC.iter().map(|byte| format!("{byte:02x}")).collect();
        let maker = maker.join(":");
        self.inside.ip(&format!(
            "link add {name} address {maker}:{index:02x} type veth peer name {name} netns {}",
            self.outside.path()
        ))?;
        for namespace in [&self.outside, &self.inside] {
            namespace.ip(&format!("link set {name} up"))?;
        }
        Ok(())
    }
}

// === impl Persona ===

impl Persona {
    /// Of the calling thread only, and for good.
    pub fn become_it(self) -> io::Result<()> {
        let capabilities = match self {
            Self::Root => return Ok(()),
            Self::Agent => {
                let (uid, gid) = (Uid::from_raw(1000), Gid::from_raw(1000));
                set_thread_groups(&[])?;
                set_thread_res_gid(gid, gid, gid)?;
                set_thread_res_uid(uid, uid, uid)?;
                CapabilitySet::empty()
            }
            Self::DefaultRoot => {
                CapabilitySet::CHOWN
                    | CapabilitySet::DAC_OVERRIDE
                    | CapabilitySet::FSETID
                    | CapabilitySet::FOWNER
                    | CapabilitySet::MKNOD
                    | CapabilitySet::NET_RAW
                    | CapabilitySet::SETGID
                    | CapabilitySet::SETUID
                    | CapabilitySet::SETFCAP
                    | CapabilitySet::SETPCAP
                    | CapabilitySet::NET_BIND_SERVICE
                    | CapabilitySet::SYS_CHROOT
                    | CapabilitySet::KILL
                    | CapabilitySet::AUDIT_WRITE
            }
        };
        set_no_new_privs(true)?;
        set_capabilities(
            None,
            CapabilitySets {
                effective: capabilities,
                permitted: capabilities,
                inheritable: CapabilitySet::empty(),
            },
        )?;
        Ok(())
    }
}
