//! axum and fred without a session library: the least that sessions in Redis can cost.

use fred::clients::Pool;
use fred::interfaces::{ClientLike as _, KeysInterface as _, LuaInterface as _};
use fred::types::Builder;
use fred::types::config::{Config, TcpConfig};
use fred::types::{Expiration, Value};
use uuid::Uuid;

use crate::by_hand::{LIFE, Place};
use crate::{Counter, Failure};

/// As many connections as the crate has by default.
const CONNECTIONS: usize = 4;

/// Adds one to the counter in a session's JSON. It knows what is in a session, which no library can.
const ADD_ONE: &str = "
local text = redis.call('GET', KEYS[1])
if not text then return false end
local session = cjson.decode(text)
session.n = session.n + 1
redis.call('SET', KEYS[1], cjson.encode(session), 'PX', ARGV[1])
return session.n";

/// Replaces a session that nobody changed since it was read; answers what is there otherwise.
const COMPARE_AND_SET: &str = "
local text = redis.call('GET', KEYS[1])
if text ~= ARGV[1] then return text end
redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
return 1";

/// Connections as all contestants have them that use fred.
pub(crate) async fn pool(url: &str) -> Result<Pool, Failure> {
    let mut builder = Builder::from_config(Config::from_url(url)?);
    builder.with_connection_config(|config| {
        config.tcp = TcpConfig { nodelay: Some(true), ..TcpConfig::default() };
    });
    let pool = builder.build_pool(CONNECTIONS)?;
    pool.init().await?;
    Ok(pool)
}

/// A read is one GET, a write is one script.
#[derive(Clone)]
pub(crate) struct OneCommand {
    pool: Pool,
    script: String,
}

impl OneCommand {
    pub(crate) async fn connect(url: &str) -> Result<Self, Failure> {
        let pool = pool(url).await?;
        let script = pool.next().script_load(ADD_ONE).await?;
        Ok(Self { pool, script })
    }
}

impl Place for OneCommand {
    async fn create(&self, id: Uuid) -> Result<(), Failure> {
        create(&self.pool, id).await
    }

    async fn read(&self, id: Uuid) -> Result<Option<u64>, Failure> {
        Ok(read(&self.pool, id).await?.map(|(_, counter)| counter.n))
    }

    async fn add_one(&self, id: Uuid) -> Result<Option<u64>, Failure> {
        let arguments = [LIFE];
        Ok(self.pool.evalsha(self.script.as_str(), key(id), arguments.to_vec()).await?)
    }

    async fn remove(&self, id: Uuid) -> Result<(), Failure> {
        Ok(self.pool.del(key(id)).await?)
    }
}

/// A read is one GET, a write is a GET and a script that refuses if another was faster: what a
/// library pays at least whose sessions may hold anything and lose no write.
#[derive(Clone)]
pub(crate) struct CompareAndSet {
    pool: Pool,
    script: String,
}

impl CompareAndSet {
    pub(crate) async fn connect(url: &str) -> Result<Self, Failure> {
        let pool = pool(url).await?;
        let script = pool.next().script_load(COMPARE_AND_SET).await?;
        Ok(Self { pool, script })
    }
}

impl Place for CompareAndSet {
    async fn create(&self, id: Uuid) -> Result<(), Failure> {
        create(&self.pool, id).await
    }

    async fn read(&self, id: Uuid) -> Result<Option<u64>, Failure> {
        Ok(read(&self.pool, id).await?.map(|(_, counter)| counter.n))
    }

    async fn add_one(&self, id: Uuid) -> Result<Option<u64>, Failure> {
        let Some((mut text, mut counter)) = read(&self.pool, id).await? else { return Ok(None) };
        loop {
            counter.n += 1;
            let arguments = vec![text, serde_json::to_string(&counter)?, LIFE.to_string()];
            let answer: Value = self.pool.evalsha(self.script.as_str(), key(id), arguments).await?;
            match answer {
                Value::Integer(_) => return Ok(Some(counter.n)),
                Value::Null => return Ok(None),
                newer => {
                    text = newer.convert()?;
                    counter = serde_json::from_str(&text)?;
                }
            }
        }
    }

    async fn remove(&self, id: Uuid) -> Result<(), Failure> {
        Ok(self.pool.del(key(id)).await?)
    }
}

fn key(id: Uuid) -> String {
    format!("session:{}", id.simple())
}

async fn create(pool: &Pool, id: Uuid) -> Result<(), Failure> {
    let text = serde_json::to_string(&Counter { n: 1 })?;
    Ok(pool.set(key(id), text, Some(Expiration::PX(LIFE)), None, false).await?)
}

/// The session's text, and what it says.
async fn read(pool: &Pool, id: Uuid) -> Result<Option<(String, Counter)>, Failure> {
    let text: Option<String> = pool.get(key(id)).await?;
    text.map(|text| Ok((text.clone(), serde_json::from_str(&text)?))).transpose()
}
