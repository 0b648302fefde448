//! Names in Redis. All keys of one client share the hash tag `{client}`, so that each script
//! stays in one slot of a cluster.

use fred::types::Key;

use crate::session::{ClientId, SessionId};

/// | key | holds |
/// |---|---|
/// | `P:{cid}:s` | the record |
/// | `P:{cid}:m` | the mapping: generation, id and the earliest end, longer than the record, and whether its end was announced |
/// | `P:{cid}:l` | the lease: its owner's token |
/// | `P:{cid}:q` | those who wait for it, in order |
/// | `P:sid:<sid>` | the pointer from an id to its client, true only if the record agrees |
/// | `P:{sweep}:due` | clients by when to look at their session |
/// | `P:{sweep}:tombstones` | ends that were announced a page at a time, until their mappings say so |
/// | `P:{sweep}:leader`, `P:{sweep}:candidates` | the node that sweeps; how many have asked to in this term |
/// | channel `P:c:<database>:<cid>` | announcements of a client's session; channels, other than keys, are those of all databases |
/// | channel `P:ends:<database>` | ends of sessions, for the node that sweeps and for those that listen to all |
/// | channel `P:all:<database>` | what concerns all nodes |
/// | `P:{nodes}:z`, `P:{nodes}:h` | the nodes by when they count as gone; what they say of themselves |
/// | `P:{instance}:w` | what a node's health check writes |
/// | channel `P:n:<instance>` | leases granted to a node's waiters |
#[derive(Debug, Clone)]
pub(super) struct Keys {
    prefix: String,
    database: u8,
}

impl Keys {
    pub(super) fn new(prefix: &str, database: u8) -> Self {
        Self { prefix: prefix.to_owned(), database }
    }

    fn of(&self, client: &ClientId, part: &str) -> String {
        format!("{}:{{{}}}:{part}", self.prefix, client.as_str())
    }

    /// Another key of a client, by its last letter.
    pub(super) fn part(&self, client: &ClientId, part: char) -> Key {
        format!("{}:{{{}}}:{part}", self.prefix, client.as_str()).into()
    }

    /// The record of a client. Scripts derive the other keys of the client from it.
    pub(super) fn record(&self, client: &ClientId) -> Key {
        self.of(client, "s").into()
    }

    pub(super) fn pointer(&self, session: &SessionId) -> String {
        format!("{}:sid:{}", self.prefix, session.as_str())
    }

    pub(super) fn schedule(&self) -> String {
        format!("{}:{{sweep}}:due", self.prefix)
    }

    pub(super) fn tombstones(&self) -> String {
        format!("{}:{{sweep}}:tombstones", self.prefix)
    }

    /// The node that sweeps, and how many have asked during its term.
    pub(super) fn leader(&self) -> [String; 2] {
        ["leader", "candidates"].map(|part| format!("{}:{{sweep}}:{part}", self.prefix))
    }

    /// The channel of a client's session.
    pub(super) fn announcements(&self, client: &ClientId) -> String {
        format!("{}:c:{}:{}", self.prefix, self.database, client.as_str())
    }

    /// The pattern of the channels of all clients. Access rules name it word for word.
    pub(super) fn all_announcements(&self) -> String {
        format!("{}:c:{}:*", self.prefix, self.database)
    }

    /// The channel of all ends.
    pub(super) fn ends(&self) -> String {
        format!("{}:ends:{}", self.prefix, self.database)
    }

    /// The channel of all nodes.
    pub(super) fn all_nodes(&self) -> String {
        format!("{}:all:{}", self.prefix, self.database)
    }

    pub(super) fn grants_prefix(&self) -> String {
        format!("{}:n:", self.prefix)
    }

    /// The channel of one process. Not named by the node: names can be given twice by mistake.
    pub(super) fn grants(&self, instance: &str) -> String {
        format!("{}{instance}", self.grants_prefix())
    }

    pub(super) fn registry(&self) -> Vec<Key> {
        ["z", "h"].map(|part| format!("{}:{{nodes}}:{part}", self.prefix).into()).into()
    }

    /// What the health check of a process writes. In a cluster other nodes' may be in other slots.
    pub(super) fn health(&self, instance: &str) -> Key {
        format!("{}:{{{instance}}}:w", self.prefix).into()
    }

    /// The pattern of keyspace notifications for records.
    pub(super) fn witnesses(&self) -> String {
        // The braces of the tag mean themselves in a pattern.
        format!("__keyspace@{}__:{}:{{*}}:s", self.database, self.prefix)
    }

    /// The client whose record a key is.
    pub(super) fn client_of_record(&self, key: &str) -> Option<ClientId> {
        let rest = key.strip_prefix(&self.prefix)?.strip_prefix(":{")?;
        ClientId::parse(rest.strip_suffix("}:s")?).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_key_names_its_client_and_no_other_key_does() {
        let (keys, client) = (Keys::new("app:x", 0), ClientId::generate());
        assert_eq!(keys.client_of_record(&keys.of(&client, "s")), Some(client));
        assert_eq!(keys.client_of_record(&keys.of(&client, "m")), None);
        assert_eq!(Keys::new("app", 0).client_of_record(&keys.of(&client, "s")), None);
    }
}
