//! A primary and its replica.

use std::time::Duration;

use cluster_tests::{LOCAL_SERVER, Proxy, Redis, RedisOptions, until};

/// Sentinels that find a machine too busy do nothing for half a minute.
pub(crate) const FAILED_OVER: Duration = Duration::from_secs(180);

/// A primary, and a replica that gets everything over the proxy.
pub(crate) fn pair() -> (Redis, Proxy, Redis) {
    pair_of(LOCAL_SERVER)
}

/// The same of any program.
pub(crate) fn pair_of(program: &str) -> (Redis, Proxy, Redis) {
    let primary = RedisOptions::new().program(program).start();
    let proxy = Proxy::start(&primary.address());
    let address = proxy.address();
    let port = address.rsplit(':').next().unwrap();
    let arguments = ["--replicaof", "127.0.0.1", port];
    let replica = RedisOptions::new().program(program).arguments(&arguments).start();
    has_replicas(&primary, 1);
    (primary, proxy, replica)
}

/// Waits until so many replicas count: the primary takes them for such only after their first
/// word, up to a second after they have all data.
pub(crate) fn has_replicas(primary: &Redis, wanted: usize) {
    until("the replicas follow", FAILED_OVER, || {
        let info = primary.ask(&["INFO", "replication"])?;
        let online = info.lines().filter(|line| line.contains("state=online")).count();
        (online == wanted).then_some(())
    });
}
