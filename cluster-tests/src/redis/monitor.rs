//! Which commands a server was sent.

use super::Redis;
use super::client::{Connection, Reply};

/// Notes all commands that a server runs, from its start on.
#[derive(Debug)]
pub struct Monitor {
    connection: Connection,
}

impl Monitor {
    pub(super) fn start(redis: &Redis) -> Self {
        let mut connection = redis.connect();
        let begun = connection.call(&["MONITOR"]);
        assert!(matches!(&begun, Ok(Reply::Text(ok)) if ok == "OK"), "MONITOR: {begun:?}");
        Self { connection }
    }

    /// What clients sent so far, each command with its arguments in quotes, without what their
    /// scripts did inside.
    ///
    /// # Panics
    /// If the connection broke.
    pub fn sent(&mut self, redis: &Redis) -> Vec<String> {
        let lines = self.until_now(redis);
        let direct = lines.iter().filter(|line| !line.contains(" lua] "));
        direct.map(|line| command(line)).collect()
    }

    /// All commands so far, those inside of scripts included.
    ///
    /// # Panics
    /// If the connection broke.
    pub fn run(&mut self, redis: &Redis) -> Vec<String> {
        self.until_now(redis).iter().map(|line| command(line)).collect()
    }

    fn until_now(&mut self, redis: &Redis) -> Vec<String> {
        const END: &str = "the-monitor-ends-here";
        redis.cli(&["ECHO", END]);
        let mut lines = Vec::new();
        loop {
            match self.connection.read() {
                Ok(Reply::Text(line)) if line.contains(END) => return lines,
                Ok(Reply::Text(line)) => lines.push(line),
                other => panic!("MONITOR: {other:?}"),
            }
        }
    }
}

/// Without time and origin.
fn command(line: &str) -> String {
    line.split_once("] ").map_or(line, |(_, command)| command).to_owned()
}
