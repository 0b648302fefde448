//! Reading and changing sessions: a read is one command, a change one script.

use fred::prelude::*;

use super::hints::{Hint, Only, pointer};
use crate::backend::redis::context::{Shared, millis};
use crate::backend::redis::expiry::probe::probe_and_clean;
use crate::backend::redis::script;
use crate::backend::redis::script::reply::{Fields, Stored, mode_text};
use crate::backend::redis::view::Input;
use crate::backend::{
    Commit, Committed, Create, Created, DestroyTarget, LeaseToken, Loaded, NewId,
};
use crate::error::{Error, Result};
use crate::session::{ClientId, DestroyReason, Generation, MaxAge, Record, SessionId};

impl Shared {
    // ---- reading -------------------------------------------------------------------------

    pub(super) async fn client_record(&self, client: &ClientId) -> Result<Option<Record>> {
        let stored = match self.link.fields(self.keys.record(client)).await? {
            Some(values) if Fields(&values).is_missing() => {
                self.view.apply(Input::Missing(*client));
                return Ok(None);
            }
            Some(values) => Fields(&values).record(client, self.link.clock.now()),
            None => Stored::Corrupt(Error::store("a record", "its key is no hash")),
        };
        self.live(client, stored).await
    }

    /// Ends a record that can't be read: one bad record must not fail for ever.
    async fn live(&self, client: &ClientId, stored: Stored) -> Result<Option<Record>> {
        match stored {
            Stored::Live(record) => {
                self.learn(&record);
                Ok(Some(record))
            }
            Stored::Over => {
                probe_and_clean(self, client, DestroyReason::Expired).await?;
                Ok(None)
            }
            Stored::Corrupt(error) => {
                tracing::warn!(client = ?client, %error, "a stored session is unreadable and ends");
                if !self.end(client, DestroyReason::Corrupt, End::default()).await? {
                    probe_and_clean(self, client, DestroyReason::Corrupt).await?;
                }
                Ok(None)
            }
        }
    }

    pub(super) async fn load(&self, ids: &[SessionId], hint: Option<&ClientId>) -> Result<Loaded> {
        // The one cookie of an honest browser names the session of its client: one command. Several
        // are looked up side by side with it, so that they take one trip too.
        let pointers = async {
            match ids {
                [_] if hint.is_some() => Ok(None),
                ids => {
                    let all = ids.iter().map(|id| self.hinted(id));
                    futures_util::future::try_join_all(all).await.map(Some)
                }
            }
        };
        let hinted = async {
            match hint {
                Some(client) => self.client_record(client).await,
                None => Ok(None),
            }
        };
        let (own, pointers) = futures_util::try_join!(hinted, pointers)?;
        let mut superseded = false;
        for (at, id) in ids.iter().enumerate() {
            match &own {
                Some(record) if record.opens_by(id) => return Ok(Loaded::Found(record.clone())),
                Some(record) if record.had(id) => {
                    superseded = true;
                    continue;
                }
                _ => {}
            }
            let client = match &pointers {
                Some(pointers) => pointers.get(at).copied().flatten(),
                None => self.hinted(id).await?,
            };
            let Some(client) = client.filter(|client| Some(client) != hint) else { continue };
            match self.client_record(&client).await? {
                Some(record) if record.opens_by(id) => return Ok(Loaded::Found(record)),
                other => superseded |= other.is_some_and(|record| record.had(id)),
            }
        }
        Ok(Loaded::Missing { superseded })
    }

    // ---- writing -------------------------------------------------------------------------

    pub(super) async fn create(&self, create: &Create) -> Result<Created> {
        let mode = create.max_age.validate()?;
        let data = create.data.encode(self.config.max_payload)?;
        let client = &create.client;
        let mut arguments = self.head(client);
        arguments.extend([
            SessionId::generate().as_str().into(),
            Generation::random().number().to_string().into(),
            data.into(),
            mode_text(mode).into(),
            self.idle(mode, create.sealed),
            self.cap(),
            millis(create.join).into(),
            flag(create.sealed),
            millis(create.age).into(),
            self.prefix(),
        ]);
        // Twice: a record that can't be read ends, and then there is none.
        for _ in 0..2 {
            let keys = self.session_keys(client);
            let (reply, copied) =
                self.link.change(&script::CREATE, keys, arguments.clone()).await?;
            match reply.status {
                3 => return Err(Error::ended()),
                5 => return Ok(Created::Occupied),
                _ => self.link.observe(&reply),
            }
            match (reply.status, reply.record(client)?) {
                (1, Stored::Live(record)) => {
                    self.learn(&record);
                    let look = Hint::Look(*client, record.remaining, Only::Always);
                    self.hint(pointer(&record, &reply).chain([look]), copied.is_ok()).await;
                    copied?;
                    return Ok(Created::New(record));
                }
                (2, stored) => {
                    if let Some(record) = self.live(client, stored).await? {
                        return Ok(Created::Exists(record));
                    }
                }
                _ => return Err(reply.unexpected()),
            }
        }
        Err(Error::store("creating a session", "the client's record can't be read or ended"))
    }

    pub(super) async fn commit(&self, commit: Commit) -> Result<Committed> {
        let mode = commit.max_age.validate()?;
        let data = commit.data.encode(self.config.max_payload)?;
        let client = &commit.client;
        let new_id = commit.new_id.map(|_| SessionId::generate());
        let (new_generation, from) = match commit.new_id {
            Some(NewId::Seal) => (Some(Generation::random()), None),
            Some(NewId::Renew { from }) => (None, Some(from)),
            None => (None, None),
        };
        let released = commit.lease.filter(|_| commit.release);
        let mut arguments = self.head(client);
        arguments.extend([
            commit.generation.number().to_string().into(),
            commit.version.map(|version| version.to_string()).unwrap_or_default().into(),
            commit.lease.map(LeaseToken::text).unwrap_or_default().into(),
            data.into(),
            mode_text(mode).into(),
            self.idle(mode, false),
            self.idle(mode, true),
            self.cap(),
            new_id.map(|id| id.as_str().to_owned()).unwrap_or_default().into(),
            new_generation.map(|g| g.number().to_string()).unwrap_or_default().into(),
            from.map(|id| id.as_str().to_owned()).unwrap_or_default().into(),
            millis(self.config.renew_overlap).into(),
            flag(released.is_some()),
        ]);
        arguments.extend(self.hand_over());
        arguments.extend([self.prefix(), millis(self.retired()).into()]);
        let (reply, copied) =
            self.link.change(&script::COMMIT, self.all_keys(client), arguments).await?;
        match reply.status {
            1 => {
                self.link.observe(&reply);
                if let Some(lease) = released {
                    self.leases.done(client, lease, self.config.lease_duration);
                }
                let record = reply.record_of(client, commit.data)?;
                self.learn(&record);
                // It may end earlier than the list says.
                let earlier = (mode != MaxAge::Default).then_some(Hint::Look(
                    *client,
                    record.remaining,
                    Only::Earlier,
                ));
                let retired = reply.previous().map(Hint::Retire);
                let hints = pointer(&record, &reply).chain(retired).chain(earlier);
                self.hint(hints, copied.is_ok()).await;
                copied?;
                Ok(Committed::Written(record))
            }
            2 => match self.live(client, reply.record(client)?).await? {
                Some(record) => Ok(Committed::Conflict(record)),
                None => Ok(Committed::Ended),
            },
            3 => Ok(Committed::Ended),
            4 => Ok(Committed::LeaseLost),
            _ => Err(reply.unexpected()),
        }
    }

    pub(super) async fn touch(
        &self,
        client: &ClientId,
        generation: Generation,
    ) -> Result<Option<Record>> {
        let mut arguments = self.head(client);
        arguments.extend([
            generation.number().to_string().into(),
            self.idle(MaxAge::Default, false),
            self.idle(MaxAge::Default, true),
            self.cap(),
            self.prefix(),
        ]);
        let reply = self.link.run(&script::TOUCH, self.session_keys(client), arguments).await?;
        match reply.status {
            1 => {
                self.link.observe(&reply);
                let record = self.live(client, reply.record(client)?).await?;
                if let Some(record) = &record {
                    self.hint(pointer(record, &reply), false).await;
                }
                Ok(record)
            }
            3 => Ok(None),
            _ => Err(reply.unexpected()),
        }
    }

    pub(super) async fn destroy(&self, target: DestroyTarget) -> Result<bool> {
        let (client, what) = match target {
            DestroyTarget::Client(client) => (client, End::default()),
            DestroyTarget::Generation(client, generation) => {
                (client, End { generation: Some(generation), ..End::default() })
            }
            DestroyTarget::Leased(client, generation, lease) => {
                (client, End { generation: Some(generation), lease: Some(lease), session: None })
            }
            DestroyTarget::Session(id) => match self.hinted(&id).await? {
                Some(client) => (client, End { session: Some(id), ..End::default() }),
                None => return Ok(false),
            },
        };
        self.end(&client, DestroyReason::Destroyed, what).await
    }

    async fn end(&self, client: &ClientId, reason: DestroyReason, what: End) -> Result<bool> {
        let mut arguments = self.head(client);
        arguments.extend([
            reason.as_str().into(),
            what.session.map(|id| id.as_str().to_owned()).unwrap_or_default().into(),
            what.generation.map(|g| g.number().to_string()).unwrap_or_default().into(),
            what.lease.map(LeaseToken::text).unwrap_or_default().into(),
        ]);
        arguments.extend(self.hand_over());
        arguments.push(self.prefix());
        let (reply, copied) =
            self.link.change(&script::DESTROY, self.all_keys(client), arguments).await?;
        match reply.status {
            1 => {
                if let Some(lease) = what.lease {
                    self.leases.done(client, lease, self.config.lease_duration);
                }
                let id = reply.text(0).and_then(|id| SessionId::parse(&id).ok());
                self.hint(id.map(Hint::Drop).into_iter().chain([Hint::Forget(*client)]), true)
                    .await;
                copied?;
                Ok(true)
            }
            0 => Ok(false),
            4 => Err(Error::lease_lost()),
            _ => Err(reply.unexpected()),
        }
    }

    // ---- notices -------------------------------------------------------------------------

    pub(super) async fn notify_set(&self, session: &SessionId, is_new: bool) -> Result<()> {
        let Some(client) = self.hinted(session).await? else { return Ok(()) };
        let arguments: Vec<Value> = vec![
            self.keys.announcements().into(),
            self.config.node.as_str().into(),
            client.as_str().into(),
            session.as_str().into(),
            if is_new { "1" } else { "0" }.into(),
        ];
        let keys = vec![self.keys.record(&client)];
        self.link.run(&script::NOTIFY, keys, arguments).await.map(drop)
    }

    pub(super) async fn notify_destroy(&self, session: &SessionId) -> Result<()> {
        let Some(client) = self.hinted(session).await? else { return Ok(()) };
        probe_and_clean(self, &client, DestroyReason::External).await.map(drop)
    }
}

fn flag(set: bool) -> Value {
    if set { "1" } else { "0" }.into()
}

/// What has to be so for a session to be ended.
#[derive(Debug, Clone, Copy, Default)]
struct End {
    session: Option<SessionId>,
    generation: Option<Generation>,
    lease: Option<LeaseToken>,
}
