//! Three nodes, what they stand on, and what listens to them.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use crate::cluster::{Cluster, PREFIX, STAY};
use crate::event_recorder::{EventRecorder, RecordedEvent};
use crate::proxy::Proxy;
use crate::redis::{Redis, RedisCluster, RedisOptions, Refusal, Sentinels};
use crate::wait::until;

/// Changing the primary has to be over by then.
const LIMIT: Duration = Duration::from_secs(90);
/// Nodes on each testbed.
pub(super) const NODES: usize = 3;

/// Which Redis.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// One whose data survives.
    Kept,
    /// One whose data is gone after a restart.
    Forgetful,
    /// A primary and two replicas behind sentinels.
    Sentinels,
    /// One that can be made to refuse writes.
    Refusing,
    /// Three primaries with a replica each.
    Slots,
}

#[derive(Debug)]
pub(super) enum Place {
    One(Redis),
    Sentinels(Sentinels),
    Slots(RedisCluster),
}

/// Three nodes on a Redis of their own. If it is a single one, a proxy is in front of it for each
/// node.
#[derive(Debug)]
pub struct Testbed {
    pub(super) place: Place,
    /// The nodes.
    pub cluster: Cluster,
    pub(super) proxies: Vec<Proxy>,
    recorders: Vec<EventRecorder>,
    /// What nodes told before they were killed.
    past: Vec<Vec<(Instant, RecordedEvent)>>,
    /// A server that was killed and has not come back.
    pub(super) away: Option<usize>,
    /// The server that has taken over, behind sentinels.
    heir: Option<usize>,
}

impl Testbed {
    /// Starts them on one Redis whose data survives, with these flags.
    ///
    /// # Panics
    /// If anything does not start.
    pub fn kept(flags: &[&str]) -> Self {
        Self::start(Kind::Kept, flags)
    }

    pub(super) fn start(kind: Kind, flags: &[&str]) -> Self {
        let place = match kind {
            Kind::Kept => Place::One(RedisOptions::new().durable().start()),
            Kind::Forgetful => Place::One(Redis::start()),
            Kind::Refusing => Place::One(Refusal::options().start()),
            Kind::Sentinels => Place::Sentinels(Sentinels::start()),
            Kind::Slots => Place::Slots(RedisCluster::start()),
        };
        let proxies: Vec<Proxy> = match &place {
            Place::One(redis) => (0..NODES).map(|_| Proxy::start(&redis.address())).collect(),
            Place::Sentinels(_) | Place::Slots(_) => Vec::new(),
        };
        let urls = match &place {
            Place::One(_) => proxies.iter().map(Proxy::redis_url).collect(),
            Place::Sentinels(redis) => vec![redis.url(); NODES],
            Place::Slots(redis) => vec![redis.url(); NODES],
        };
        // A socket that is disconnected as soon as it was told could be told twice unseen.
        let cluster = Cluster::start_at(&urls, &[&STAY[..], flags].concat());
        let recorders = cluster.nodes().iter().map(EventRecorder::follow).collect();
        Self { place, cluster, proxies, recorders, past: Vec::new(), away: None, heir: None }
    }

    /// The one Redis.
    ///
    /// # Panics
    /// If there are several.
    pub fn redis(&self) -> &Redis {
        match &self.place {
            Place::One(redis) => redis,
            Place::Sentinels(_) | Place::Slots(_) => panic!("there are several servers"),
        }
    }

    pub(super) fn redis_mut(&mut self) -> &mut Redis {
        match &mut self.place {
            Place::One(redis) => redis,
            Place::Sentinels(_) | Place::Slots(_) => panic!("there are several servers"),
        }
    }

    /// What each node tells.
    pub fn recorders(&self) -> &[EventRecorder] {
        &self.recorders
    }

    /// Closes the recorders: each is a request that its node serves.
    pub fn stop_listening(&mut self) {
        self.past.extend(self.recorders.drain(..).map(|recorder| recorder.told_at()));
    }

    /// What each node told since it was started, and when.
    ///
    /// # Panics
    /// Never.
    pub fn told(&self) -> Vec<Vec<(Instant, RecordedEvent)>> {
        let now = self.recorders.iter().map(EventRecorder::told_at);
        self.past.iter().cloned().chain(now).collect()
    }

    /// Ends of sessions that a node told more than once.
    ///
    /// # Panics
    /// Never.
    pub fn told_twice(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for told in self.told() {
            let mut ends = std::collections::HashMap::<&str, usize>::new();
            let ended =
                told.iter().map(|(_, event)| event).filter(|event| event.reason().is_some());
            ended
                .filter_map(RecordedEvent::session)
                .for_each(|id| *ends.entry(id).or_default() += 1);
            let twice = ends.into_iter().filter(|(_, times)| *times > 1);
            problems.extend(twice.map(|(id, times)| format!("a node told {id} {times} times")));
        }
        problems
    }

    /// What nodes told that was not done, in so many words: ends of sessions that live, more changes of
    /// one than it had, and, if nodes missed nothing, beginnings of sessions that neither live nor ended.
    /// `live` are those that live, with their clients, while nobody uses them.
    pub(super) fn undone(&self, live: &[(String, String)], missed_nothing: bool) -> Vec<String> {
        let mut undone = Vec::new();
        for recorder in &self.recorders {
            for (client, session) in live {
                let told = recorder.of(session);
                if told.iter().any(|event| event.reason().is_some()) {
                    undone.push(format!("{session} lives, and a node told its end"));
                }
                if let Place::One(redis) = &self.place
                    && let Some(version) = redis.stored_version(PREFIX, client)
                    && told.len() > version
                {
                    undone.push(format!("{session} has version {version}: {} told", told.len()));
                }
            }
            if missed_nothing {
                undone.extend(self.phantoms(recorder));
            }
        }
        undone
    }

    /// Sessions that a node told of and that never were.
    fn phantoms(&self, recorder: &EventRecorder) -> Vec<String> {
        let told = recorder.told();
        let ended: HashSet<_> = told
            .iter()
            .filter(|event| event.reason().is_some())
            .filter_map(RecordedEvent::session)
            .collect();
        let begun = told
            .iter()
            .filter(|event| matches!(event, RecordedEvent::Set { is_new: true, .. }))
            .filter_map(RecordedEvent::session);
        let lives = |id: &str| self.redis().cli(&["EXISTS", &format!("{PREFIX}:sid:{id}")]) == "1";
        let phantoms = begun.filter(|id| !ended.contains(id) && !lives(id));
        phantoms.map(|id| format!("{id} was told of and never was")).collect()
    }

    /// Whether somebody holds the lease of this client's session.
    pub(super) fn is_held(&self, client: &str) -> bool {
        self.redis().ask(&["EXISTS", &format!("{PREFIX}:{{{client}}}:l")]).as_deref() == Some("1")
    }

    pub(super) fn restart_node(&mut self, at: usize) {
        self.cluster[at].start_again();
        let recorder = EventRecorder::follow(&self.cluster[at]);
        self.past.push(std::mem::replace(&mut self.recorders[at], recorder).told_at());
    }

    /// Waits until replicas have all that was acknowledged.
    pub(super) fn is_copied(&self) {
        match &self.place {
            Place::One(_) => {}
            Place::Sentinels(redis) => {
                let primary = redis.primary().expect("one of them is the primary");
                redis.servers()[primary].is_copied_by(2);
            }
            Place::Slots(redis) => {
                (0..3).for_each(|pair| redis.servers()[leads(redis, pair)].is_copied_by(1));
            }
        }
    }

    /// Kills a primary, unless that is done already.
    pub(super) fn kill_primary(&mut self, pair: usize) {
        if self.away.is_some() {
            return;
        }
        let victim = match &self.place {
            Place::One(_) => panic!("nobody could take over"),
            Place::Sentinels(redis) => redis.primary().expect("one of them is the primary"),
            Place::Slots(redis) => leads(redis, pair),
        };
        self.server(victim).kill();
        self.away = Some(victim);
    }

    fn server(&mut self, at: usize) -> &mut Redis {
        match &mut self.place {
            Place::One(redis) => redis,
            Place::Sentinels(redis) => redis.server(at),
            Place::Slots(redis) => redis.server(at),
        }
    }

    /// Waits until another server has taken over.
    pub(super) fn is_taken_over(&mut self) {
        let Some(victim) = self.away else { return };
        match &self.place {
            Place::One(_) => {}
            Place::Sentinels(redis) => {
                self.heir = Some(until("a replica takes over", LIMIT, || redis.primary()));
            }
            Place::Slots(redis) => {
                let heir = &redis.servers()[(victim + 3) % 6];
                until("the replica takes over", LIMIT, || {
                    heir.ask(&["ROLE"])?.starts_with("master").then_some(())
                });
                redis.works();
            }
        }
    }

    /// Starts the primary that was killed again, as a replica, if there is one.
    pub(super) fn is_whole(&mut self) {
        let Some(victim) = self.away.take() else { return };
        self.is_the_only_heir();
        let server = self.server(victim);
        server.start_again();
        until("it follows the other one", LIMIT, || {
            server.ask(&["ROLE"])?.starts_with("slave").then_some(())
        });
        match &self.place {
            Place::One(_) => {}
            Place::Sentinels(redis) => redis.works(),
            Place::Slots(redis) => redis.works(),
        }
        self.is_the_only_heir();
    }

    /// A failover that no fault asked for loses what Redis had acknowledged.
    fn is_the_only_heir(&self) {
        if let (Place::Sentinels(redis), Some(heir)) = (&self.place, self.heir) {
            redis.agree_on(heir);
        }
    }
}

/// Which of a pair is the primary.
fn leads(redis: &RedisCluster, pair: usize) -> usize {
    let leads = |at: &usize| {
        redis.servers()[*at].ask(&["ROLE"]).is_some_and(|role| role.starts_with("master"))
    };
    [pair, pair + 3].into_iter().find(leads).expect("one of the pair is the primary")
}
