//! Which server the sentinels call the primary.
//!
//! A failover need not wait for a death: a primary that only seemed dead, or whose place another one
//! was told to take, goes on to take writes until the sentinels make it a replica, some ten seconds later.
//! All of that is lost. The sentinels tell of a failover at once, by `+switch-master`
//! (<https://redis.io/docs/latest/develop/reference/sentinel-clients/>).

use std::collections::HashMap;
use std::time::Duration;

use fred::prelude::*;
use fred::types::CustomCommand;
use fred::types::config::ServerConfig;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use crate::backend::redis::connection::url::in_a_line;
use crate::backend::redis::error::failed;
use crate::error::Result;

/// How often a sentinel is asked, should it not have told.
const ASK: Duration = Duration::from_secs(5);
/// What a sentinel says when it has turned to another primary.
const SWITCHED: &str = "+switch-master";

/// The primary by the sentinels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named {
    /// The failover that made it the primary. A sentinel that was away names an older one.
    epoch: u64,
    /// Where it is.
    pub(crate) server: Server,
}

/// A connection to each sentinel.
#[derive(Debug)]
pub(crate) struct Sentinels {
    pub(crate) clients: Vec<Client>,
    service: String,
    newest: watch::Sender<Option<Named>>,
}

impl Sentinels {
    /// Those of a configuration, with clients that are not connected yet, and need not be for anything
    /// else to go on. `None` if it has none.
    pub(crate) fn new(config: &Config, timeout: Duration) -> Result<Option<Self>> {
        let ServerConfig::Sentinel { hosts, service_name, username, password } = &config.server
        else {
            return Ok(None);
        };
        let in_a_line = |word: &str| in_a_line(word).into_owned();
        let client = |server: &Server| {
            let config = Config {
                server: ServerConfig::Centralized { server: server.clone() },
                username: username.as_deref().map(in_a_line),
                password: password.as_deref().map(in_a_line),
                database: None,
                fail_fast: false,
                ..config.clone()
            };
            crate::backend::redis::connection::options::builder(config, timeout)
                .build()
                .map_err(|e| failed("connect", e))
        };
        let clients = hosts.iter().map(client).collect::<Result<_>>()?;
        let newest = watch::Sender::new(None);
        Ok(Some(Self { clients, service: service_name.clone(), newest }))
    }

    /// What they say, from the first answer on.
    pub(crate) fn named(&self) -> watch::Receiver<Option<Named>> {
        self.newest.subscribe()
    }

    /// Listens to all of them, until their clients are closed.
    pub(crate) async fn listen(self) {
        let Self { clients, service, newest } = self;
        let each = clients.iter().map(|client| hear(client, &service, &newest));
        futures_util::future::join_all(each).await;
    }
}

async fn hear(client: &Client, service: &str, newest: &watch::Sender<Option<Named>>) {
    let (mut messages, mut reconnects) = (client.message_rx(), client.reconnect_rx());
    let mut connection = client.connect();
    let mut turns = tokio::time::interval(ASK);
    turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let told = tokio::select! {
            message = messages.recv() => match message {
                Err(RecvError::Closed) => return,
                _ => true,
            },
            reconnected = reconnects.recv() => {
                if matches!(reconnected, Err(RecvError::Closed)) {
                    return;
                }
                if let Err(error) = client.subscribe(SWITCHED).await {
                    tracing::warn!(%error, "a sentinel is asked for its primary only now and then, as it can't be listened to");
                }
                false
            }
            _ = turns.tick() => false,
            ended = &mut connection => {
                if let Ok(Err(error)) = ended {
                    tracing::warn!(%error, "a sentinel can't be listened to: is its user or password wrong?");
                }
                return;
            }
        };
        if !client.is_connected() {
            continue;
        }
        match ask(client, service).await {
            Ok(named) => {
                newest.send_if_modified(|known| named.replaces(known, told));
            }
            Err(error) => tracing::debug!(%error, "a sentinel did not name its primary"),
        }
    }
}

/// What this sentinel calls the primary.
async fn ask(client: &Client, service: &str) -> std::result::Result<Named, fred::error::Error> {
    let question = CustomCommand::new_static("SENTINEL", None, false);
    let facts: HashMap<String, String> = client.custom(question, vec!["MASTER", service]).await?;
    let fact = |name: &str| {
        let missing = || fred::error::Error::new(ErrorKind::NotFound, format!("no `{name}`"));
        facts.get(name).ok_or_else(missing)
    };
    let port = fact("port")?.parse()?;
    Ok(Named { epoch: fact("config-epoch")?.parse()?, server: Server::new(fact("ip")?, port) })
}

impl Named {
    /// Takes the place of what was known, if it is newer. Whether there is something to do: also if a
    /// sentinel named what another one has named, because a client that asked it before was sent to the old one.
    fn replaces(self, known: &mut Option<Self>, told: bool) -> bool {
        match known {
            Some(known) if self.epoch < known.epoch => false,
            Some(known) if *known == self => told,
            _ => {
                *known = Some(self);
                true
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(epoch: u64, port: u16) -> Named {
        Named { epoch, server: Server::new("127.0.0.1", port) }
    }

    #[test]
    fn a_sentinel_that_was_away_does_not_bring_an_old_primary_back() {
        let mut known = None;
        assert!(named(1, 1).replaces(&mut known, false));
        assert!(!named(1, 1).replaces(&mut known, false), "nothing new");
        assert!(
            named(1, 1).replaces(&mut known, true),
            "whoever asked this one was sent elsewhere"
        );
        assert!(named(2, 2).replaces(&mut known, true));
        assert!(!named(1, 1).replaces(&mut known, true));
        assert_eq!(known, Some(named(2, 2)));
    }
}
