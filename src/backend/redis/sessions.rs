//! Reading and changing sessions: a read is one command, a change one script.

use fred::prelude::Value;

use super::context::Context;
use super::end::{End, end};
use super::expiry::probe::probe_and_clean;
use super::hints::hint::{Hint, Only};
use super::hints::{self, pointer};
use super::lease::give_back::given_back;
use super::lost::{self, LEASE_LOST, OTHER};
use super::near_cache::Look;
use super::prepare::{Prepared, prepare};
use super::record::{self, Stored, put_generation, put_max_age, put_number};
use super::view::Input;
use crate::backend::redis::script::argument::bytes;
use crate::backend::redis::script::reply::Reply;
use crate::backend::{
    Commit, Committed, Create, Created, DestroyTarget, LeaseToken, Loaded, NewId,
};
use crate::error::{Error, ErrorKind, Result};
use crate::session::{ClientId, DestroyReason, Generation, MaxAge, Record, SessionId};

/// What the scripts of a write answer.
const WRITTEN: i64 = 1;
const MISSING: i64 = 3;
const OVER: i64 = 6;

/// How often a client's session may be replaced while it is to be ended.
const REPLACED: usize = 32;

// ---- reading -------------------------------------------------------------------------

pub(super) async fn client_record(context: &Context, client: &ClientId) -> Result<Option<Record>> {
    let followed = context.view.follows(client);
    let stored = context.commands.stored(context.keys.record(client)).await?;
    if stored.is_null() {
        context.forget(client);
        if followed {
            context.view.apply(Input::Missing(*client));
        }
        return Ok(None);
    }
    let stored = stored.as_bytes().unwrap_or_default();
    let stored = record::read(client, stored, context.commands.clock.now());
    live(context, client, stored, followed).await
}

/// Ends a record that can't be read: one bad record must not fail again and again.
async fn live(
    context: &Context,
    client: &ClientId,
    stored: Stored,
    followed: bool,
) -> Result<Option<Record>> {
    match stored {
        Stored::Live(record) => {
            context.learn(&record, followed);
            Ok(Some(record))
        }
        Stored::Overdue => {
            Box::pin(probe_and_clean(context, client, DestroyReason::Expired)).await?;
            Ok(None)
        }
        Stored::Corrupt(error) => {
            tracing::warn!(client = ?client, %error, "a stored session is unreadable and ends");
            Box::pin(end_corrupt(context, client)).await?;
            Ok(None)
        }
        Stored::Newer(error) => Err(error),
    }
}

async fn end_corrupt(context: &Context, client: &ClientId) -> Result<()> {
    if !end(context, client, DestroyReason::Corrupt, End::default()).await? {
        probe_and_clean(context, client, DestroyReason::Corrupt).await?;
    }
    Ok(())
}

pub(super) async fn load(
    context: &Context,
    ids: &[SessionId],
    hint: Option<&ClientId>,
) -> Result<Loaded> {
    let (&[id], Some(client)) = (ids, hint) else {
        return Box::pin(load_several(context, ids, hint)).await;
    };
    // The one cookie of an honest browser names the session of its client: one command, or none.
    let fill = match context.near_cache.as_ref().map(|near| (near, near.look(client))) {
        Some((_, Look::Hit(record))) if record.opens_by(&id) => return Ok(Loaded::Found(record)),
        Some((near, Look::Miss(fill))) => Some((near, fill)),
        // An id that is newer than what is here.
        _ => None,
    };
    let record = client_record(context, client).await?;
    if let (Some((near, fill)), Some(record)) = (fill, &record) {
        near.fill(fill, record);
    }
    match record {
        Some(record) if record.opens_by(&id) => Ok(Loaded::Found(record)),
        Some(record) if record.had(&id) => Ok(Loaded::Missing { superseded: true }),
        _ => {
            Box::pin(async move {
                let client = hints::client_of(context, &id).await?;
                load_pointed(context, &id, client, hint).await
            })
            .await
        }
    }
}

/// Several are looked up side by side, so that they take one trip too.
async fn load_several(
    context: &Context,
    ids: &[SessionId],
    hint: Option<&ClientId>,
) -> Result<Loaded> {
    let pointers = ids.iter().map(|id| hints::client_of(context, id));
    let hinted = async {
        match hint {
            Some(client) => client_record(context, client).await,
            None => Ok(None),
        }
    };
    let pointers = futures_util::future::try_join_all(pointers);
    let (own, pointers) = futures_util::try_join!(hinted, pointers)?;
    let mut any_superseded = false;
    for (id, pointer) in ids.iter().zip(pointers) {
        match &own {
            Some(record) if record.opens_by(id) => return Ok(Loaded::Found(record.clone())),
            Some(record) if record.had(id) => any_superseded = true,
            _ => match load_pointed(context, id, pointer, hint).await? {
                Loaded::Missing { superseded } => any_superseded |= superseded,
                found => return Ok(found),
            },
        }
    }
    Ok(Loaded::Missing { superseded: any_superseded })
}

/// The session that an id's pointer leads to, unless that is the client that was read already.
async fn load_pointed(
    context: &Context,
    id: &SessionId,
    pointer: Option<ClientId>,
    read: Option<&ClientId>,
) -> Result<Loaded> {
    let Some(client) = pointer.filter(|client| Some(client) != read) else {
        return Ok(Loaded::Missing { superseded: false });
    };
    Ok(match client_record(context, &client).await? {
        Some(record) if record.opens_by(id) => Loaded::Found(record),
        other => Loaded::Missing { superseded: other.is_some_and(|record| record.had(id)) },
    })
}

// ---- writing -------------------------------------------------------------------------

pub(super) async fn create(context: &Context, create: &Create) -> Result<Created> {
    let mode = create.max_age.validate()?;
    let data = create.data.encode(context.config.max_payload)?;
    let client = &create.client;
    let followed = context.view.follows(client);
    let mut request = Vec::with_capacity(80);
    put_generation(&mut request, Generation::random());
    request.extend_from_slice(SessionId::generate().as_str().as_bytes());
    put_max_age(&mut request, mode);
    request.push(u8::from(create.sealed));
    put_number(&mut request, record::millis(create.join), 5);
    put_number(&mut request, record::millis(create.age), 6);
    let arguments = vec![context.who(client), bytes(request), data.into()];
    // Twice: a record that can't be read ends, and then there is none.
    for _ in 0..2 {
        let script = &context.commands.scripts.create;
        let keys = context.keys_of(client, "m");
        let (reply, copied) = context.commands.change(script, keys, arguments.clone()).await?;
        match reply.status {
            3 => return Err(Error::ended()),
            5 => return Ok(Created::Occupied),
            _ => context.commands.observe(&reply),
        }
        match reply.status {
            1 => {
                let record = reply.record_of(client, create.data.clone())?;
                context.wrote(&record, followed);
                let look = Hint::Look(*client, record.remaining, Only::Always);
                hints::set(context, pointer(&record, &reply).chain([look]), copied.is_ok()).await;
                copied?;
                return Ok(Created::New(record));
            }
            // An earlier run of this, whose answer was lost, created it.
            6 => {
                if let Some(record) = live(context, client, reply.record(client)?, followed).await?
                {
                    hints::set(context, lost::hints(&record), false).await;
                    copied.and_then(|()| lost::copied(&context.commands))?;
                    return Ok(Created::New(record));
                }
            }
            2 => {
                if let Some(record) = live(context, client, reply.record(client)?, followed).await?
                {
                    return Ok(Created::Exists(record));
                }
            }
            _ => return Err(reply.unexpected()),
        }
    }
    Err(Error::store("creating a session", "the client's record can't be read or ended"))
}

pub(super) async fn commit(context: &Context, commit: Commit) -> Result<Committed> {
    let client = commit.client;
    let committed = match commit.version {
        Some(_) => commit_version(context, commit).await,
        None => Box::pin(overwrite(context, commit)).await,
    };
    // It may have been written.
    committed.inspect_err(|_| context.forget(&client))
}

async fn overwrite(context: &Context, mut commit: Commit) -> Result<Committed> {
    // Whatever is there is overwritten: the first guess is the newest version known here.
    let client = commit.client;
    commit.version = match context.view.cached_session(&client) {
        Some(known) if known.generation == commit.generation => Some(known.version),
        _ => client_record(context, &client).await?.map(|record| record.version),
    };
    while commit.version.is_some() {
        match commit_version(context, commit.clone()).await? {
            Committed::Conflict(newest) => {
                (commit.version, commit.stamp) = (Some(newest.version), newest.stamp);
            }
            done => return Ok(done),
        }
    }
    Ok(Committed::Ended)
}

async fn commit_version(context: &Context, commit: Commit) -> Result<Committed> {
    let mode = commit.max_age.validate()?;
    let data = commit.data.encode(context.config.max_payload)?;
    let now = context.commands.clock.now();
    if let Some(prepared) = prepare(&context.config, &commit, mode, &data, now)
        && let Some(committed) = write(context, &commit, prepared, now).await?
    {
        return Ok(committed);
    }
    Box::pin(commit_any(context, commit, mode, data)).await
}

/// A write of which the script works out what becomes of the session.
async fn commit_any(
    context: &Context,
    commit: Commit,
    mode: MaxAge,
    data: String,
) -> Result<Committed> {
    let client = &commit.client;
    let followed = context.view.follows(client);
    let released = commit.lease.filter(|_| commit.release);
    let mut request = Vec::with_capacity(128);
    put_generation(&mut request, commit.generation);
    put_number(&mut request, commit.version.unwrap_or(0), 5);
    put_max_age(&mut request, mode);
    request.push(u8::from(released.is_some()));
    let new_session = SessionId::generate();
    if let Some(new_id) = commit.new_id {
        request.extend_from_slice(new_session.as_str().as_bytes());
        let from = if let NewId::Renew { from } = new_id { Some(from) } else { None };
        request.push(u8::from(from.is_none()));
        put_generation(&mut request, Generation::random());
        let from = from.as_ref().map_or(&[b'-'; SessionId::LEN][..], |id| id.as_str().as_bytes());
        request.extend_from_slice(from);
    }
    let arguments = vec![
        context.who(client),
        bytes(request),
        data.into(),
        commit.lease.map(LeaseToken::text).unwrap_or_default().into(),
    ];
    let script = &context.commands.scripts.commit;
    let (reply, copied) =
        context.commands.change(script, context.keys_of(client, "mlq"), arguments).await?;
    if reply.repeated && reply.status != WRITTEN {
        let ran = lost::ran(context, &commit, &reply, Some(&new_session));
        if let Some(record) = Box::pin(ran).await? {
            hints::set(context, lost::hints(&record), false).await;
            written(context, &commit, &record, followed).await;
            copied.and_then(|()| lost::copied(&context.commands))?;
            return Ok(Committed::Written(record));
        }
    }
    match reply.status {
        WRITTEN => {
            context.commands.observe(&reply);
            let record = reply.record_of(client, commit.data.clone())?;
            // It may end earlier than the schedule says.
            let earlier = (mode != MaxAge::Default).then_some(Hint::Look(
                *client,
                record.remaining,
                Only::Earlier,
            ));
            let retired = reply.previous().map(Hint::Retire);
            let hints = pointer(&record, &reply).chain(retired).chain(earlier);
            hints::set(context, hints, copied.is_ok()).await;
            written(context, &commit, &record, followed).await;
            copied?;
            Ok(Committed::Written(record))
        }
        OVER => {
            let over = End { generation: Some(commit.generation), ..End::default() };
            end(context, client, DestroyReason::Expired, over).await?;
            Ok(Committed::Ended)
        }
        _ => refused(context, &commit, &reply, followed).await,
    }
}

/// Writes what was prepared. `None` if the session is the one that was read, but lives longer by now:
/// then it is to be prepared again.
async fn write(
    context: &Context,
    commit: &Commit,
    prepared: Prepared,
    now: u64,
) -> Result<Option<Committed>> {
    let client = &commit.client;
    let followed = context.view.follows(client);
    let scripts = &context.commands.scripts;
    let record = record::read_with(client, prepared.head(), now, commit.data.clone());
    let record = record.ok_or_else(|| Error::store("a write", "an odd record was prepared"))?;
    let Prepared { expected, record: stored, message, .. } = prepared;
    let channel = context.keys.announcements(client).into();
    let mut arguments = vec![bytes(expected), bytes(stored), channel, bytes(message)];
    let (script, keys) = match commit.lease {
        None => (&scripts.write, context.keys_of(client, "")),
        Some(lease) => {
            let released = if commit.release { client.as_str() } else { "" };
            arguments.extend([Value::from(lease.text()), released.into()]);
            (&scripts.write_leased, context.keys_of(client, "lq"))
        }
    };
    let (reply, copied) = context.commands.change(script, keys, arguments).await?;
    if reply.status == WRITTEN {
        written(context, commit, &record, followed).await;
        copied?;
        return Ok(Some(Committed::Written(record)));
    }
    if reply.repeated
        && let Some(record) = Box::pin(lost::ran(context, commit, &reply, None)).await?
    {
        written(context, commit, &record, followed).await;
        copied.and_then(|()| lost::copied(&context.commands))?;
        return Ok(Some(Committed::Written(record)));
    }
    match Box::pin(refused(context, commit, &reply, followed)).await? {
        Committed::Conflict(newest) if Some(newest.version) == commit.version => Ok(None),
        refused => Ok(Some(refused)),
    }
}

async fn written(context: &Context, commit: &Commit, record: &Record, followed: bool) {
    if let Some(lease) = commit.lease.filter(|_| commit.release) {
        given_back(context, &commit.client, lease).await;
    }
    context.wrote(record, followed);
}

/// Why nothing was written.
async fn refused(
    context: &Context,
    commit: &Commit,
    reply: &Reply,
    followed: bool,
) -> Result<Committed> {
    let client = &commit.client;
    match reply.status {
        OTHER => Ok(match live(context, client, reply.record(client)?, followed).await? {
            Some(record) if record.generation == commit.generation => Committed::Conflict(record),
            _ => Committed::Ended,
        }),
        MISSING => {
            context.forget(client);
            if followed {
                context.view.apply(Input::Missing(*client));
            }
            Ok(Committed::Ended)
        }
        LEASE_LOST => Ok(Committed::LeaseLost),
        _ => Err(reply.unexpected()),
    }
}

pub(super) async fn touch(
    context: &Context,
    client: &ClientId,
    generation: Generation,
) -> Result<Option<Record>> {
    let followed = context.view.follows(client);
    let mut gen_bytes = Vec::new();
    put_generation(&mut gen_bytes, generation);
    let arguments = vec![context.who(client), bytes(gen_bytes)];
    let keys = context.keys_of(client, "m");
    let reply = context.commands.run(&context.commands.scripts.touch, keys, arguments).await?;
    match reply.status {
        1 => {
            context.commands.observe(&reply);
            let record = live(context, client, reply.record(client)?, followed).await?;
            if let Some(record) = &record {
                context.wrote(record, followed);
                hints::set(context, pointer(record, &reply), false).await;
            }
            Ok(record)
        }
        3 => Ok(None),
        _ => Err(reply.unexpected()),
    }
}

pub(super) async fn destroy(context: &Context, target: DestroyTarget) -> Result<bool> {
    let (client, what) = match target {
        DestroyTarget::Client(client) => return destroy_any(context, &client).await,
        DestroyTarget::Generation(client, generation) => {
            (client, End { generation: Some(generation), ..End::default() })
        }
        DestroyTarget::Leased(client, generation, lease) => {
            (client, End { generation: Some(generation), lease: Some(lease), session: None })
        }
        DestroyTarget::Session(id) => match hints::client_of(context, &id).await? {
            Some(client) => (client, End { session: Some(id), ..End::default() }),
            None => return Ok(false),
        },
    };
    end(context, &client, DestroyReason::Destroyed, what).await
}

/// Ends the client's session that is there now: a second run for a lost answer must not end the next
/// one.
async fn destroy_any(context: &Context, client: &ClientId) -> Result<bool> {
    for _ in 0..REPLACED {
        let Some(record) = client_record(context, client).await? else {
            // It may be that nobody has announced the end of the last one.
            let none = End { generation: Some(Generation::random()), ..End::default() };
            return end(context, client, DestroyReason::Destroyed, none).await;
        };
        let this = End { generation: Some(record.generation), ..End::default() };
        if end(context, client, DestroyReason::Destroyed, this).await? {
            return Ok(true);
        }
    }
    Err(Error::new(ErrorKind::Busy, "the client's session was replaced again and again"))
}

// ---- notices -------------------------------------------------------------------------

pub(super) async fn notify_set(context: &Context, session: &SessionId, is_new: bool) -> Result<()> {
    let Some(client) = hints::client_of(context, session).await? else { return Ok(()) };
    let arguments = vec![context.who(&client), session.as_str().into(), i64::from(is_new).into()];
    let keys = vec![context.keys.record(&client)];
    context.commands.run_once(&context.commands.scripts.notify, keys, arguments).await.map(drop)
}

pub(super) async fn notify_destroy(context: &Context, session: &SessionId) -> Result<()> {
    let Some(client) = hints::client_of(context, session).await? else { return Ok(()) };
    probe_and_clean(context, &client, DestroyReason::External).await.map(drop)
}
