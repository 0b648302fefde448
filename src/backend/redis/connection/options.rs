//! How the client library is configured.

use std::time::Duration;

use fred::prelude::*;
use fred::types::config::{TcpConfig, UnresponsiveConfig};

/// Commands that may wait on one connection while Redis is away; more fail at once.
const BUFFERED: usize = 10_000;

/// Clients of this kind.
pub(crate) fn builder(config: Config, timeout: Duration) -> Builder {
    let clustered = config.server.is_clustered();
    let mut builder = Builder::from_config(config);
    builder
        .with_performance_config(|performance| {
            performance.default_command_timeout = timeout;
        })
        .with_connection_config(|connection| {
            connection.connection_timeout = timeout;
            connection.internal_command_timeout = timeout;
            // A write that is sent again could be done twice.
            connection.max_command_attempts = 1;
            if clustered {
                // Redirections are not followed but asked again (`Commands::ask`): the library's
                // `ASKING` takes the next answer of its connection for its own, even if it belongs
                // to another command.
                connection.max_redirections = 0;
            }
            // Answers and announcements must not wait for the acknowledgement of the ones before.
            connection.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
            connection.max_command_buffer_len = BUFFERED;
            connection.unresponsive =
                UnresponsiveConfig { max_timeout: Some(2 * timeout), interval: timeout / 2 };
        })
        // Without an end: a node recovers by itself.
        .set_policy(ReconnectPolicy::new_exponential(0, 50, 2000, 2));
    builder
}
