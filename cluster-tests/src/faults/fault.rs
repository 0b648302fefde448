//! What is done to nodes, the network and Redis.

use std::time::{Duration, Instant};

use super::testbed::{Kind, Testbed};
use crate::redis::Refusal;

/// One kind of fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[allow(missing_docs)] // each has a name
pub enum Fault {
    NodeKilled,
    NodeFrozen,
    ConnectionsCut,
    HalfOpen,
    Stalled,
    Refused,
    Slow,
    RedisKilled,
    RedisFrozen,
    SubscriptionsKilled,
    ScriptsForgotten,
    RedisEmptied,
    Flushed,
    Swapped,
    SentinelFailover,
    ClusterFailover,
    Refuses(Refusal),
}

/// How long nodes lend a session.
pub(super) const LEASE: &str = "2s";

impl Fault {
    /// All there are.
    pub const ALL: [Self; 21] = [
        Self::NodeKilled,
        Self::NodeFrozen,
        Self::ConnectionsCut,
        Self::HalfOpen,
        Self::Stalled,
        Self::Refused,
        Self::Slow,
        Self::RedisKilled,
        Self::RedisFrozen,
        Self::SubscriptionsKilled,
        Self::ScriptsForgotten,
        Self::RedisEmptied,
        Self::Flushed,
        Self::Swapped,
        Self::SentinelFailover,
        Self::ClusterFailover,
        Self::Refuses(Refusal::TooFewReplicas),
        Self::Refuses(Refusal::Replica),
        Self::Refuses(Refusal::Full),
        Self::Refuses(Refusal::CantSave),
        Self::Refuses(Refusal::DiskFull),
    ];

    /// Those that one Redis survives with its data.
    pub const SURVIVED: [Self; 11] = [
        Self::NodeKilled,
        Self::NodeFrozen,
        Self::ConnectionsCut,
        Self::HalfOpen,
        Self::Stalled,
        Self::Refused,
        Self::Slow,
        Self::RedisKilled,
        Self::RedisFrozen,
        Self::SubscriptionsKilled,
        Self::ScriptsForgotten,
    ];

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NodeKilled => "a node killed (`kill -9`) while it holds a lease, started again",
            Self::NodeFrozen => "a node frozen for longer than the lease that it holds, thawed",
            Self::ConnectionsCut => "a node's connections to Redis cut",
            Self::HalfOpen => "a node's connections to Redis half open",
            Self::Stalled => "nothing gets through between a node and Redis, for a while",
            Self::Refused => "a node's connections cut and new ones refused, for a while",
            Self::Slow => "each way to Redis takes 30 ms, for a while",
            Self::RedisKilled => "Redis killed, started again with its data",
            Self::RedisFrozen => "Redis frozen for a while",
            Self::SubscriptionsKilled => "`CLIENT KILL TYPE pubsub`",
            Self::ScriptsForgotten => "`SCRIPT FLUSH`",
            Self::RedisEmptied => "Redis killed, started again without its data",
            Self::Flushed => "`FLUSHALL`",
            Self::Swapped => "`SWAPDB` with an empty database",
            Self::SentinelFailover => "the primary behind sentinels killed: a replica takes over",
            Self::ClusterFailover => "a primary of a Redis Cluster killed: its replica takes over",
            Self::Refuses(refusal) => refusal.name(),
        }
    }

    pub(super) const fn kind(self) -> Kind {
        match self {
            Self::RedisEmptied | Self::Flushed | Self::Swapped => Kind::Forgetful,
            Self::SentinelFailover => Kind::Sentinels,
            Self::ClusterFailover => Kind::Slots,
            Self::Refuses(_) => Kind::Refusing,
            _ => Kind::Kept,
        }
    }

    /// Whether Redis loses all sessions by it.
    pub const fn loses_data(self) -> bool {
        matches!(self, Self::RedisEmptied | Self::Flushed | Self::Swapped)
    }

    /// Whether all connections stay, so that nodes miss nothing.
    pub const fn refuses(self) -> bool {
        matches!(self, Self::Refuses(_))
    }

    /// Whether no node can notice it before it compares its sockets with Redis.
    pub const fn is_silent(self) -> bool {
        matches!(self, Self::Flushed | Self::Swapped)
    }

    /// Whether another server takes over.
    pub(super) const fn fails_over(self) -> bool {
        matches!(self, Self::SentinelFailover | Self::ClusterFailover)
    }

    /// The audit interval of the nodes: so long for what is noticed that no audit helps.
    pub(super) const fn audit(self) -> &'static str {
        if self.is_silent() { "5s" } else { "10m" }
    }

    /// How long after the later of its session's end and the fault's end a socket is told.
    pub const fn bound(self) -> Duration {
        // Silent: the audit interval, and as much again for a busy machine. Half-open connections
        // are noticed within 6 seconds, all others sooner.
        if self.is_silent() { Duration::from_secs(10) } else { Duration::from_secs(20) }
    }

    /// Whether a node holds a lease when it happens.
    pub(super) const fn needs_a_lease(self) -> bool {
        matches!(self, Self::NodeKilled | Self::NodeFrozen)
    }

    /// One fault, from its begin to its end; `for_a_while` is how long it lasts, if it does, and
    /// `meanwhile` runs as soon as it has begun. Returns the end; of what ends by itself, the
    /// begin.
    ///
    /// # Panics
    /// If it can't be done.
    pub fn strike(
        self,
        testbed: &mut Testbed,
        at: usize,
        for_a_while: Duration,
        meanwhile: &mut dyn FnMut(),
    ) -> Instant {
        let begun = Instant::now();
        let lasts = |begin: &dyn Fn(), end: &dyn Fn(), meanwhile: &mut dyn FnMut()| {
            begin();
            meanwhile();
            std::thread::sleep(for_a_while.saturating_sub(begun.elapsed()));
            end();
            Instant::now()
        };
        let at_once = |meanwhile: &mut dyn FnMut()| {
            let end = Instant::now();
            meanwhile();
            end
        };
        let net =
            |testbed: &Testbed, fault: &dyn Fn(&crate::Proxy), meanwhile: &mut dyn FnMut()| {
                let proxy = &testbed.proxies[at];
                lasts(&|| fault(proxy), &|| proxy.heal(), meanwhile)
            };
        match self {
            Self::NodeKilled => {
                testbed.cluster[at].kill();
                let killed = Instant::now();
                testbed.restart_node(at);
                meanwhile();
                killed
            }
            Self::NodeFrozen => {
                let node = &testbed.cluster[at];
                lasts(&|| node.freeze(), &|| node.thaw(), meanwhile)
            }
            Self::ConnectionsCut => {
                testbed.proxies[at].cut();
                at_once(meanwhile)
            }
            Self::HalfOpen => {
                testbed.proxies[at].half_open();
                at_once(meanwhile)
            }
            Self::Stalled => net(testbed, &crate::Proxy::stall, meanwhile),
            Self::Refused => net(testbed, &crate::Proxy::refuse, meanwhile),
            Self::Slow => net(testbed, &|proxy| proxy.delay(Duration::from_millis(30)), meanwhile),
            Self::RedisKilled | Self::RedisEmptied => {
                testbed.redis_mut().kill();
                testbed.redis_mut().start_again();
                at_once(meanwhile)
            }
            Self::RedisFrozen => {
                let redis = testbed.redis();
                lasts(&|| redis.pause(), &|| redis.resume(), meanwhile)
            }
            Self::Refuses(refusal) => {
                let redis = testbed.redis();
                lasts(&|| refusal.begin(redis), &|| refusal.end(redis), meanwhile)
            }
            Self::SubscriptionsKilled => {
                testbed.redis().cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
                at_once(meanwhile)
            }
            Self::ScriptsForgotten => {
                testbed.redis().cli(&["SCRIPT", "FLUSH"]);
                at_once(meanwhile)
            }
            Self::Flushed => {
                testbed.redis().cli(&["FLUSHALL"]);
                at_once(meanwhile)
            }
            Self::Swapped => {
                // What an earlier swap left must not come back.
                testbed.redis().cli(&["EVAL", SWAP, "0"]);
                at_once(meanwhile)
            }
            Self::SentinelFailover | Self::ClusterFailover => {
                testbed.kill_primary(at);
                meanwhile();
                testbed.is_taken_over();
                Instant::now()
            }
        }
    }
}

/// In one step: nothing is written in between.
const SWAP: &str = "redis.call('SELECT', 1) redis.call('FLUSHDB') redis.call('SELECT', 0) \
    return redis.call('SWAPDB', 0, 1)";
