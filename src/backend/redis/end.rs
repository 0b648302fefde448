//! Ending a session, whoever asked for it.

use super::context::Context;
use super::hints;
use super::hints::hint::Hint;
use super::lease::give_back::given_back;
use super::lost;
use super::pubsub::message;
use super::record::put_generation;
use crate::backend::LeaseToken;
use crate::backend::redis::script::argument::bytes;
use crate::error::{Error, Result};
use crate::session::{ClientId, DestroyReason, Generation, SessionId};

/// What has to be so for a session to be ended.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct End {
    pub(super) session: Option<SessionId>,
    pub(super) generation: Option<Generation>,
    pub(super) lease: Option<LeaseToken>,
}

/// Ends the client's session if it is that, and announces why. `false` if there is none.
pub(super) async fn end(
    context: &Context,
    client: &ClientId,
    reason: DestroyReason,
    what: End,
) -> Result<bool> {
    let mut generation = Vec::new();
    if let Some(wanted) = what.generation {
        put_generation(&mut generation, wanted);
    }
    let arguments = vec![
        context.who(client),
        i64::from(message::code(reason)).into(),
        what.session.map(|id| id.as_str().to_owned()).unwrap_or_default().into(),
        bytes(generation),
        what.lease.map(LeaseToken::text).unwrap_or_default().into(),
        // Who ends it, among all that may.
        LeaseToken::random().text().into(),
    ];
    let script = &context.commands.scripts.destroy;
    let keys = context.keys_of(client, "mlq");
    let ended = context.commands.change(script, keys, arguments).await;
    // Whatever came of it: what is here may be older.
    context.forget(client);
    let (reply, copied) = ended?;
    match reply.status {
        1 | 5 => {
            if let Some(lease) = what.lease {
                given_back(context, client, lease).await;
            }
            let id = reply.session(0);
            let hints = id.map(Hint::Drop).into_iter().chain([Hint::Forget(*client)]);
            hints::set(context, hints, true).await;
            copied?;
            // An earlier run of this, whose answer was lost, ended it.
            if reply.status == 5 {
                lost::copied(&context.commands)?;
            }
            Ok(true)
        }
        0 => Ok(false),
        4 => Err(Error::lease_lost()),
        _ => Err(reply.unexpected()),
    }
}
