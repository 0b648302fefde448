//! Connections to Redis: how they are made, checked, monitored, and how a command is sent.

mod again;
pub(super) mod clock;
pub(super) mod commands;
pub(super) mod connect;
pub(super) mod options;
pub(super) mod replication;
pub(super) mod sentinel;
pub(super) mod tls;
pub(super) mod url;
