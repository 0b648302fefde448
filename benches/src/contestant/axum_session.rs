//! axum_session with its Redis store.

use axum::routing::{get, post};
use axum::{Json, Router};
use axum_session::{Session, SessionConfig, SessionLayer, SessionStore};
use axum_session_redispool::SessionRedisPool;
use redis::IntoConnectionInfo as _;
use redis::io::tcp::TcpSettings;
use redis_pool::RedisPool;

use crate::by_hand::plain;
use crate::{Counter, Failure};

type RedisSession = Session<SessionRedisPool>;

pub(crate) async fn router(url: &str) -> Result<Router, Failure> {
    let nodelay = TcpSettings::default().set_nodelay(true);
    let client = redis::Client::open(url.into_connection_info()?.set_tcp_settings(nodelay))?;
    let config = SessionConfig::default()
        .with_ip_and_user_agent(false)
        // By default a node goes on with its own copy for an hour, and does not see what other nodes
        // write.
        .with_memory_lifetime(Default::default());
    let pool = SessionRedisPool::from(RedisPool::from(client));
    let store = SessionStore::new(Some(pool), config).await?;
    Ok(Router::new()
        .route("/plain", get(plain))
        .route("/read", get(read))
        .route("/write", post(write))
        .route("/logout", post(logout))
        .layer(SessionLayer::new(store)))
}

async fn read(session: RedisSession) -> Json<Counter> {
    Json(Counter { n: session.get("n").unwrap_or(0) })
}

async fn write(session: RedisSession) -> Json<Counter> {
    let n = session.get("n").unwrap_or(0) + 1;
    session.set("n", n);
    Json(Counter { n })
}

async fn logout(session: RedisSession) -> Json<Counter> {
    session.destroy();
    Json(Counter { n: 0 })
}
