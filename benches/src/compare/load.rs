//! One load on one contestant.

use std::path::PathBuf;
use std::time::Duration;

use crate::Result;
use crate::contract;
use crate::plan::{Load, SOCKETS};
use crate::processes::Running;
use crate::sockets::Sockets;
use crate::wrk::{self, Wrk};

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
    all: PathBuf,
    one: PathBuf,
}

impl Target {
    /// Starts it and checks that it keeps the contract.
    pub(crate) fn start(contestant: crate::plan::Contestant) -> Result<Self> {
        let running = Running::start(contestant)?;
        contract::check(&running).map_err(|error| format!("{}: {error}", contestant.name()))?;
        let cookies = contract::sessions(&running)?;
        let all = wrk::cookie_file(contestant.name(), &cookies)?;
        let one = wrk::cookie_file(&format!("{}-one", contestant.name()), &cookies[..1])?;
        Ok(Self { running, cookies, all, one })
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
