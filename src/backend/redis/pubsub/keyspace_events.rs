//! The keyspace notifications that Redis is asked for.

use std::collections::HashMap;

use fred::clients::WithOptions;
use fred::prelude::*;

use crate::backend::redis::KeyspaceEvents;

/// Of keys (`K`): deletions (`g`), expiries and evictions.
pub(crate) const WANTED: &str = "Kgxe";

/// Makes a server notify of deletions, expiries and evictions. What is set here is lost
/// when it restarts, so this is done at each reconnect.
///
/// # Errors
/// What stands against it.
pub(crate) async fn switch_on(
    server: &WithOptions<Client>,
    wanted: KeyspaceEvents,
) -> std::result::Result<(), String> {
    let now: HashMap<String, String> =
        server.config_get("notify-keyspace-events").await.map_err(|error| error.to_string())?;
    let flags = now.get("notify-keyspace-events").cloned().unwrap_or_default();
    let Some(merged) = merged(&flags) else { return Ok(()) };
    if wanted == KeyspaceEvents::Check {
        return Err(format!("it has {flags:?}"));
    }
    let set: std::result::Result<(), _> =
        server.config_set("notify-keyspace-events", merged.as_str()).await;
    set.map_err(|error| error.to_string())?;
    tracing::info!(flags = merged, "keyspace notifications switched on");
    Ok(())
}

/// The flags that are there and those that are missing; `None` if none is. `A` stands for all but
/// `K`, `E`, `m` and `n`.
fn merged(flags: &str) -> Option<String> {
    let has = |flag: char| flags.contains(flag) || (flag != 'K' && flags.contains('A'));
    let missing: String = WANTED.chars().filter(|flag| !has(*flag)).collect();
    (!missing.is_empty()).then(|| format!("{flags}{missing}"))
}

#[cfg(test)]
mod tests {
    use super::merged;

    #[test]
    fn flags_are_merged_into_what_is_there() {
        assert_eq!(merged("").as_deref(), Some("Kgxe"));
        assert_eq!(merged("Elx").as_deref(), Some("ElxKge"));
        assert_eq!(merged("AE").as_deref(), Some("AEK"));
        assert_eq!(merged("AKE"), None);
        assert_eq!(merged("xeKg"), None);
    }
}
