//! Giving a lease back.

use fred::prelude::Value;

use crate::backend::LeaseToken;
use crate::backend::redis::context::Context;
use crate::session::ClientId;

/// Gives a lease back, or leaves the queue. `again`: a second acquire of the token may be on its way,
/// and must find nothing.
pub(crate) async fn give_back(context: &Context, client: &ClientId, token: String, again: bool) {
    let keys = context.keys_of(client, "lqx");
    let arguments: Vec<Value> = vec![
        token.into(),
        context.instance.as_str().into(),
        client.as_str().into(),
        i64::from(again).into(),
    ];
    if let Err(error) =
        context.commands.run(&context.commands.scripts.release, keys, arguments).await
    {
        tracing::debug!(%error, "a lease was not given back and runs out by itself");
    }
}

/// A change gave the lease back with it.
pub(crate) async fn given_back(context: &Context, client: &ClientId, lease: LeaseToken) {
    if context.leases.done(client, lease, context.config.lease_duration) {
        Box::pin(give_back(context, client, lease.text(), true)).await;
    }
}
