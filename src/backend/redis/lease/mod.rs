//! Leases: first the line of this node, then the one of all nodes, where each node has one entry.

pub(super) mod give_back;
pub(super) mod waiters;

use std::sync::Arc;
use std::time::Duration;

use fred::prelude::Value;
use tokio::time::Instant;

use crate::backend::lease_queue;
use crate::backend::redis::context::Context;
use crate::backend::redis::error::closed;
use crate::backend::redis::record::Stored;
use crate::backend::redis::script::argument::millis;
use crate::backend::redis::sessions;
use crate::backend::{Acquired, LeaseToken};
use crate::error::Result;
use crate::session::{ClientId, Record};
use give_back::give_back;
use waiters::Turn;

/// A waiter looks again this much after the owner's lease has run out.
const AFTER: Duration = Duration::from_millis(5);

/// Leaves what a waiter stands in when it goes away.
struct Leave<'a> {
    context: &'a Arc<Context>,
    client: ClientId,
    lease: Option<LeaseToken>,
    /// Whether Redis was asked: then it may have an entry or a lease of ours.
    asked: bool,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        match self.lease {
            Some(lease) if self.asked => release(self.context, &self.client, lease),
            lease => self.context.leases.leave_line(
                &self.client,
                lease,
                self.context.config.lease_duration,
            ),
        }
    }
}

enum Answer {
    Granted(Option<Record>),
    Queued(Duration),
}

/// Waits for the client's lease, at most `wait`.
pub(super) async fn acquire(
    context: &Arc<Context>,
    client: &ClientId,
    wait: Duration,
) -> Result<Acquired> {
    let deadline = Instant::now() + wait;
    let length = context.config.lease_duration;
    // Made before the line is taken, so dropped after it: the last one that leaves finds
    // the line in no other hands.
    let mut leave = Leave { context, client: *client, lease: None, asked: false };
    let line = context.leases.line(client);
    let lease = line.acquire(length, wait, context.config.lease_queue_limit).await?;
    leave.lease = Some(lease);
    // This node's line stands still as long as we wait in the other one.
    line.renew(lease, wait + length);
    let mut granted = context.leases.grant_of(lease);
    let mut gaps = context.leases.gaps();
    leave.asked = true;
    let record = loop {
        let begun = Instant::now();
        let left = deadline.saturating_duration_since(begun);
        let check = match try_acquire(context, client, lease, left).await {
            Ok(Answer::Granted(record)) => break record,
            // A moment later than the owner's end: then the line has to be moved on.
            Ok(Answer::Queued(left)) => Instant::now() + left + AFTER,
            Err(error) => {
                // Each would wait as long for the same silence, one after the other.
                if begun.elapsed() >= context.commands.timeout {
                    line.reject_all();
                }
                return Err(error);
            }
        };
        tokio::select! {
            biased;
            grant = &mut granted => {
                grant.map_err(|_| closed())?;
                // Asking again reads the session, and makes sure of the lease: the grant may be old.
                granted = context.leases.grant_of(lease);
            }
            // A grant may have been missed. The sender lives as long as the backend.
            _ = gaps.changed() => {}
            () = tokio::time::sleep_until(check.min(deadline)) => {
                if Instant::now() >= deadline {
                    return Err(lease_queue::timed_out(wait));
                }
            }
        }
    };
    context.leases.tokens().insert(lease.text(), Turn::Held);
    line.renew(lease, length);
    // From here on it is the caller's business.
    leave.lease = None;
    Ok(Acquired { lease, length, record })
}

async fn try_acquire(
    context: &Context,
    client: &ClientId,
    lease: LeaseToken,
    wait: Duration,
) -> Result<Answer> {
    let arguments: Vec<Value> = vec![
        lease.text().into(),
        context.instance.as_str().into(),
        millis(wait).into(),
        client.as_str().into(),
    ];
    let followed = context.view.follows(client);
    let keys = context.keys_of(client, "lqx");
    let acquire = &context.commands.scripts.acquire;
    let reply = context.commands.run(acquire, keys, arguments).await;
    if reply.as_ref().map_or(true, |reply| reply.repeated) {
        context.leases.note_sent_twice(lease);
    }
    let reply = reply?;
    Ok(match reply.status {
        1 => Answer::Granted(match reply.record(client)? {
            Stored::Live(record) => {
                context.commands.observe(&reply);
                context.learn(&record, followed);
                Some(record)
            }
            // Reading it again ends it.
            Stored::Corrupt(_) | Stored::Overdue => {
                sessions::client_record(context, client).await?
            }
            Stored::Newer(error) => return Err(error),
        }),
        2 => Answer::Granted(None),
        3 => {
            let left = u64::try_from(reply.number(0).unwrap_or(0)).unwrap_or(0);
            Answer::Queued(Duration::from_millis(left))
        }
        4 => return Err(lease_queue::busy(context.config.lease_queue_limit)),
        // Its caller has gone.
        5 => return Err(closed()),
        _ => return Err(reply.unexpected()),
    })
}

pub(super) async fn renew(context: &Context, client: &ClientId, lease: LeaseToken) -> Result<bool> {
    let keys = context.keys_of(client, "l");
    let reply = context
        .commands
        .run(&context.commands.scripts.renew, keys, vec![lease.text().into()])
        .await?;
    if reply.status == 1 {
        context.leases.renew_line(client, lease, context.config.lease_duration);
    }
    Ok(reply.status == 1)
}

/// Gives a lease back, or leaves the line, beside whatever the caller does next.
pub(super) fn release(context: &Arc<Context>, client: &ClientId, lease: LeaseToken) {
    let again = context.leases.done(client, lease, context.config.lease_duration);
    spawn_give_back(context, client, lease.text(), again);
}

fn spawn_give_back(context: &Arc<Context>, client: &ClientId, token: String, again: bool) {
    if context.tasks.is_closed() && context.tasks.is_empty() {
        // It runs out by itself: there is no connection any more.
        return;
    }
    let (context, client) = (context.clone(), *client);
    context.clone().tasks.spawn(async move { give_back(&context, &client, token, again).await });
}

/// Redis granted a lease to one who waits here.
pub(super) fn granted(context: &Arc<Context>, message: &str) {
    let Some((token, client)) = message.split_once('|') else { return };
    let mut tokens = context.leases.tokens();
    match tokens.get_mut(token) {
        Some(turn @ Turn::Waiting(_)) => {
            if let Turn::Waiting(waiter) = std::mem::replace(turn, Turn::Held) {
                // It may have gone in this moment; its guard gives the lease back.
                let _ = waiter.send(());
            }
        }
        // It asked by itself and was faster.
        Some(Turn::Held) => {}
        // Its waiter is gone, and its leaving was overtaken.
        None => {
            drop(tokens);
            if let Ok(client) = ClientId::parse(client) {
                spawn_give_back(context, &client, token.to_owned(), false);
            }
        }
    }
}
