//! Sessions that survive restarts and crashes, in one file.
//!
//! Run it: cargo run --example file_store
//! Try it: curl -c jar -b jar -X POST localhost:3000/visit   (kill it, start it, try again)

use axum::{Router, routing::post};
use axum_io_session::store::FileStore;
use axum_io_session::{Error, Session, SessionBridge};

async fn visit(session: Session) -> Result<String, Error> {
    let visits = session.get::<u64>("visits")?.unwrap_or(0) + 1;
    session.insert("visits", visits)?;
    Ok(format!("{visits} visits\n"))
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bridge = SessionBridge::builder()
        // The same at each start, or no cookie verifies.
        .signing_keys(["replace me by 32 or more random bytes"])
        .store(FileStore::open("sessions.redb").await?)
        .auto_cleanup(true)
        .build()
        .await?;
    let app = Router::new().route("/visit", post(visit)).layer(bridge.layer());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum_io_session::serve(listener, app)
        .with_bridge(&bridge)
        .with_graceful_shutdown(async {
            // If Ctrl-C can't be caught the server keeps running.
            if tokio::signal::ctrl_c().await.is_err() {
                std::future::pending::<()>().await;
            }
        })
        .await?;
    Ok(())
}
