//! The name of one running process.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::error::Error;

/// Names one node (a running process with a bridge). Default: a random UUID.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct NodeId(Arc<str>);

impl NodeId {
    /// A random one (UUID version 4).
    pub fn random() -> Self {
        Self(uuid::Uuid::new_v4().to_string().into())
    }

    /// A chosen name, unique among the nodes.
    ///
    /// # Errors
    /// [`InvalidOption`](crate::ErrorKind::InvalidOption) unless it has 1 to 64 characters of
    /// `A-Z a-z 0-9 . _ -`.
    pub fn new(name: &str) -> Result<Self, Error> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
            return Err(Error::option(
                "node_id",
                format_args!("{name:?}"),
                "1 to 64 characters of A-Z a-z 0-9 . _ -",
            ));
        }
        Ok(Self(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NodeId({})", self.0)
    }
}

impl fmt::Display for NodeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
