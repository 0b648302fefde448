//! A server of the contract that all contestants share.
//!
//! | route | does |
//! |---|---|
//! | `GET /plain` | answers without a session |
//! | `GET /read` | answers the session's counter, 0 without a session |
//! | `POST /write` | adds one, in the way that is usual with the library; begins a session if there is none |
//! | `POST /update` | adds one so that none is lost; only where the library has its own way to do so |
//! | `POST /logout` | ends the session |
//! | Socket.IO `session:inc` | adds one and acknowledges it |
//!
//! Each answer is `{"n": counter}`. The program prints its port, and ends when its standard input is
//! closed, so that it never outlives the process that started it.

mod axum_session;
mod by_hand;
mod commands;
mod memory;
mod ours;
mod tower_sessions;

use std::error::Error;
use std::io::Read as _;

use axum::Router;
use axum::serve::ListenerExt as _;
use axum_io_session::SessionBridge;
use axum_io_session::backend::redis::{NearCache, RedisConfig};
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;

/// What every route and every acknowledgement answers.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Counter {
    n: u64,
}

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let name = args.next().ok_or("usage: contestant NAME [PORT OF REDIS]")?;
    let redis = args.next().map(|port| format!("redis://127.0.0.1:{port}"));
    let url = || redis.as_deref().ok_or("this contestant needs the port of Redis");
    let app = match name.as_str() {
        "bare" => by_hand::router(memory::Memory::default()),
        "fred" => by_hand::router(commands::OneCommand::connect(url()?).await?),
        "cas" => by_hand::router(commands::CompareAndSet::connect(url()?).await?),
        "tower-sessions" => tower_sessions::router(url()?).await?,
        "axum_session" => axum_session::router(url()?).await?,
        "ours-live" => ours::router(SessionBridge::builder()).await?,
        "ours-redis" => ours::router(SessionBridge::builder().redis(url()?)).await?,
        "ours-near" => {
            let redis = RedisConfig::new(url()?).near_cache(NearCache::default());
            ours::router(SessionBridge::builder().redis(redis)).await?
        }
        other => return Err(format!("there is no contestant {other}").into()),
    };
    serve(app).await
}

async fn serve(app: Router) -> Result<(), Failure> {
    std::thread::spawn(|| {
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        std::process::exit(0);
    });
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    println!("{}", listener.local_addr()?.port());
    let listener = listener.tap_io(|stream| {
        let _ = stream.set_nodelay(true);
    });
    Ok(axum::serve(listener, app.into_make_service()).await?)
}
