//! A backend of your own: here one that keeps sessions in this process.
//!
//! Most applications need a store only, see `custom_store`. A backend is for a place that has
//! leases and events of its own, such as a database that many nodes share.
//!
//! Run it: cargo run --example custom_backend
//! Try it: curl -c jar -b jar -X POST localhost:3000/visit

mod backend;

use std::sync::Arc;

use axum::{Router, routing::post};
use axum_io_session::backend::Backend;
use axum_io_session::{Error, Session, SessionBridge};
use backend::MemoryBackend;

async fn visit(session: Session) -> Result<String, Error> {
    let visits = session.get::<u64>("visits")?.unwrap_or(0) + 1;
    session.insert("visits", visits)?;
    Ok(format!("{visits} visits\n"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bridge = SessionBridge::builder()
        .signing_keys(["replace me by 32 or more random bytes"])
        .backend(async |config| Ok(Arc::new(MemoryBackend::new(config)) as Arc<dyn Backend>))
        .build()
        .await?;
    let app = Router::new().route("/visit", post(visit)).layer(bridge.layer());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum_io_session::serve(listener, app).await?;
    Ok(())
}
