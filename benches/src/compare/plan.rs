//! Who takes part, and in what.

use serde::Serialize;

use Contestant::{
    AxumSession, Bare, CompareAndSet, Fred, Live, NearCache, OneNode, TowerSessions, TwoNodes,
};

/// Connections of an HTTP load; as many requests are under way at any time.
pub(crate) const CONNECTIONS: usize = 64;
/// Sockets of a socket load, each with one event under way.
pub(crate) const SOCKETS: usize = 50;
/// Sessions of each contestant. A load takes them in turn, and because there are far more of them than
/// connections no session has two requests at once.
pub(crate) const SESSIONS: usize = 512;

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Contestant {
    Bare,
    Fred,
    CompareAndSet,
    TowerSessions,
    AxumSession,
    Live,
    OneNode,
    TwoNodes,
    NearCache,
}

impl Contestant {
    pub(crate) const ALL: [Self; 9] =
        [Bare, Fred, CompareAndSet, TowerSessions, AxumSession, Live, OneNode, TwoNodes, NearCache];

    /// For `--only`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Bare => "bare",
            Fred => "fred",
            CompareAndSet => "compare-and-set",
            TowerSessions => "tower-sessions",
            AxumSession => "axum_session",
            Live => "live",
            OneNode => "one-node",
            TwoNodes => "two-nodes",
            NearCache => "near-cache",
        }
    }

    pub(crate) fn title(self) -> &'static str {
        match self {
            Bare => "axum + map",
            Fred => "axum + fred",
            CompareAndSet => "GET + compare-and-set",
            TowerSessions => "tower-sessions",
            AxumSession => "axum_session",
            Live => "this crate, LiveStore",
            OneNode => "this crate, one node",
            TwoNodes => "this crate, two nodes",
            NearCache => "this crate, near cache",
        }
    }

    /// The first argument of the program `contestant`.
    pub(crate) fn server(self) -> &'static str {
        match self {
            Bare => "bare",
            Fred => "fred",
            CompareAndSet => "cas",
            TowerSessions => "tower-sessions",
            AxumSession => "axum_session",
            Live => "ours-live",
            OneNode | TwoNodes => "ours-redis",
            NearCache => "ours-near",
        }
    }

    pub(crate) fn nodes(self) -> usize {
        if self == TwoNodes { 2 } else { 1 }
    }

    pub(crate) fn uses_redis(self) -> bool {
        !matches!(self, Bare | Live)
    }

    pub(crate) fn has_sockets(self) -> bool {
        self != AxumSession
    }

    pub(crate) fn is_ours(self) -> bool {
        matches!(self, Live | OneNode | TwoNodes | NearCache)
    }
}

#[derive(Debug)]
pub(crate) struct Workload {
    pub(crate) name: &'static str,
    pub(crate) title: &'static str,
    pub(crate) load: Load,
    /// The first one is 1.00.
    pub(crate) contestants: &'static [Contestant],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Load {
    Http {
        method: &'static str,
        path: &'static str,
        /// All connections use one session.
        hot: bool,
    },
    Sockets,
}

impl Load {
    const fn get(path: &'static str) -> Self {
        Self::Http { method: "GET", path, hot: false }
    }

    const fn post(path: &'static str) -> Self {
        Self::Http { method: "POST", path, hot: false }
    }

    const fn hot(path: &'static str) -> Self {
        Self::Http { method: "POST", path, hot: true }
    }
}

pub(crate) const WORKLOADS: [Workload; 10] = [
    Workload {
        name: "read",
        title: "HTTP read",
        load: Load::get("/read"),
        contestants: &[Fred, TowerSessions, AxumSession, OneNode, TwoNodes, NearCache],
    },
    Workload {
        name: "write",
        title: "HTTP write",
        load: Load::post("/write"),
        contestants: &[
            Fred,
            CompareAndSet,
            TowerSessions,
            AxumSession,
            OneNode,
            TwoNodes,
            NearCache,
        ],
    },
    Workload {
        name: "socket",
        title: "socket write, 50 sockets",
        load: Load::Sockets,
        contestants: &[Fred, CompareAndSet, TowerSessions, OneNode, TwoNodes],
    },
    Workload {
        name: "hot-write",
        title: "one hot session, plain write",
        load: Load::hot("/write"),
        contestants: &[Fred, CompareAndSet, TowerSessions, OneNode],
    },
    Workload {
        name: "hot-update",
        title: "one hot session, `update`",
        load: Load::hot("/update"),
        contestants: &[Fred, CompareAndSet, OneNode, TwoNodes, NearCache],
    },
    Workload {
        name: "live-plain",
        title: "HTTP, no session used",
        load: Load::get("/plain"),
        contestants: &[Bare, Live],
    },
    Workload {
        name: "live-read",
        title: "HTTP read",
        load: Load::get("/read"),
        contestants: &[Bare, Live, NearCache],
    },
    Workload {
        name: "live-write",
        title: "HTTP write",
        load: Load::post("/write"),
        contestants: &[Bare, Live],
    },
    Workload {
        name: "live-hot-update",
        title: "one hot session, `update`",
        load: Load::hot("/update"),
        contestants: &[Bare, Live],
    },
    Workload {
        name: "live-socket",
        title: "socket write, 50 sockets",
        load: Load::Sockets,
        contestants: &[Bare, Live],
    },
];
