//! Another machine as far as the network is concerned: a network namespace of Linux.

use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

/// What all namespaces of these tests are called; the process that made one follows.
const PREFIX: &str = "axum-io-session";

/// A network of its own, joined to this machine's by one cable. Dropping it removes it.
///
/// To servers of this machine, programs inside come from another machine.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    link: String,
    here: Ipv4Addr,
    inside: Ipv4Addr,
}

impl Namespace {
    /// Makes one.
    ///
    /// # Panics
    /// If this process may not, or the command `ip` is missing.
    pub fn start() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        remove_orphans();
        let (process, count) = (std::process::id(), COUNT.fetch_add(1, Ordering::Relaxed));
        // One of the 2^15 networks of four addresses in 198.18.0.0/15, which no real network uses.
        let network = u32::from(Ipv4Addr::new(198, 18, 0, 0));
        let network = network + 4 * (process.wrapping_add(count.wrapping_mul(4099)) % (1 << 15));
        // There before its parts: whatever has been made is removed if the rest fails.
        let made = Self {
            name: format!("{PREFIX}-{process}-{count}"),
            link: format!("ax{process}-{count}"),
            here: Ipv4Addr::from(network + 1),
            inside: Ipv4Addr::from(network + 2),
        };
        let (name, link) = (made.name.as_str(), made.link.as_str());
        let (here, inside) = (format!("{}/30", made.here), format!("{}/30", made.inside));
        ip(&["netns", "add", name]);
        ip(&["link", "add", link, "type", "veth", "peer", "name", "eth0", "netns", name]);
        ip(&["addr", "add", &here, "dev", link]);
        ip(&["link", "set", link, "up"]);
        ip(&["-n", name, "addr", "add", &inside, "dev", "eth0"]);
        ip(&["-n", name, "link", "set", "eth0", "up"]);
        ip(&["-n", name, "link", "set", "lo", "up"]);
        made
    }

    /// The address of this machine for programs inside.
    pub fn here(&self) -> Ipv4Addr {
        self.here
    }

    /// The address under which this machine reaches programs inside.
    pub fn inside(&self) -> Ipv4Addr {
        self.inside
    }

    /// A command that runs inside.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name]).arg(program.as_ref());
        command
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        remove(&self.name, &self.link);
    }
}

fn ip(arguments: &[&str]) {
    let output = Command::new("ip").args(arguments).output();
    let output = output.unwrap_or_else(|error| {
        panic!("the command ip can't be started ({error}): install the package iproute2")
    });
    assert!(
        output.status.success(),
        "ip {}: {}A network namespace can't be made: run the tests as root, in a container with \
         the capabilities NET_ADMIN and SYS_ADMIN",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn remove(name: &str, link: &str) {
    for arguments in [["link", "del", link], ["netns", "del", name]] {
        // It may have been made in part, or be gone.
        let _ = Command::new("ip").args(arguments).output();
    }
}

/// Removes namespaces of tests that were killed.
fn remove_orphans() {
    let Ok(output) = Command::new("ip").args(["netns", "list"]).output() else { return };
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        let name = line.split(' ').next().unwrap_or_default();
        let Some((process, count)) = name
            .strip_prefix(PREFIX)
            .and_then(|rest| rest.strip_prefix('-'))
            .and_then(|rest| rest.split_once('-'))
        else {
            continue;
        };
        if !Path::new("/proc").join(process).exists() {
            remove(name, &format!("ax{process}-{count}"));
        }
    }
}
