//! One load on one contestant.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use crate::Result;
use crate::contract;
use crate::plan::{Contestant, Load, SOCKETS};
use crate::processes::Running;
use crate::sockets::Sockets;
use crate::wrk::{self, Wrk};

/// The loads send the cookies that the first answer of a session set, and take no later ones. Browsers
/// do, so sessions are replaced before a server would have to send each answer with a new cookie.
const RENEW: Duration = Duration::from_secs(30);

/// What a load saw.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    /// Requests that were refused or answered wrongly; they count as requests.
    pub(crate) errors: u64,
    pub(crate) elapsed: f64,
    pub(crate) p50_ms: f64,
    pub(crate) p99_ms: f64,
}

/// A contestant and its sessions.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) running: Running,
    cookies: Vec<String>,
    begun: Instant,
    all: PathBuf,
    one: PathBuf,
}

impl Target {
    /// Starts it and checks that it keeps the contract.
    pub(crate) fn start(contestant: Contestant) -> Result<Self> {
        let running = Running::start(contestant)?;
        contract::check(&running).map_err(|error| format!("{}: {error}", contestant.name()))?;
        let file = |name: &str| wrk::cookie_file(&format!("{}{name}", contestant.name()));
        let (all, one) = (file("")?, file("-one")?);
        let mut target = Self { running, cookies: Vec::new(), begun: Instant::now(), all, one };
        target.begin_sessions()?;
        Ok(target)
    }

    /// To be called before each load.
    pub(crate) fn renew_sessions(&mut self) -> Result<()> {
        if self.begun.elapsed() > RENEW { self.begin_sessions() } else { Ok(()) }
    }

    fn begin_sessions(&mut self) -> Result<()> {
        self.begun = Instant::now();
        self.cookies = contract::sessions(&self.running)?;
        std::fs::write(&self.all, self.cookies.join("\n") + "\n")?;
        std::fs::write(&self.one, format!("{}\n", self.cookies[0]))?;
        Ok(())
    }

    /// The counter of the session that a hot load uses.
    pub(crate) fn hot_counter(&self) -> Result<u64> {
        contract::counter(&self.running, &self.cookies[0])
    }

    /// Makes a load ready, so that only the load itself is measured.
    pub(crate) fn prepare(&self, load: Load) -> Result<Prepared<'_>> {
        Ok(match load {
            Load::Http { method, path, hot } => {
                let only_ours = path == "/update" && !self.running.contestant.is_ours();
                let path = if only_ours { "/write" } else { path };
                let cookies = if hot { &self.one } else { &self.all };
                Prepared::Http(Wrk { port: self.running.port(), method, path, cookies })
            }
            Load::Sockets => {
                let mut sockets = Sockets::connect(self.running.port(), &self.cookies[..SOCKETS])?;
                sockets.once()?;
                Prepared::Sockets(sockets)
            }
        })
    }
}

pub(crate) enum Prepared<'a> {
    Http(Wrk<'a>),
    Sockets(Sockets),
}

impl Prepared<'_> {
    pub(crate) fn run(&mut self, length: Duration) -> Result<Outcome> {
        match self {
            Self::Http(wrk) => wrk.run(length),
            Self::Sockets(sockets) => sockets.run(length),
        }
    }
}
