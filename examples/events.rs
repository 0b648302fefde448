//! All session events, as a stream and as Server-Sent Events.
//!
//! Run it: cargo run --example events
//! Try it: curl -N localhost:3000/events & sleep 1; curl -X POST localhost:3000/visit

use std::convert::Infallible;

use axum::Router;
use axum::extract::State;
use axum::response::sse::{Event, KeepAlive, Sse};
use axum::routing::{get, post};
use axum_io_session::{Error, Session, SessionBridge, SessionEvent};
use futures_util::{Stream, StreamExt as _};

async fn visit(session: Session) -> Result<(), Error> {
    session.insert("visited", true)?;
    Ok(())
}

/// Session ids are credentials, so the messages say what happened and not to which session.
async fn watch(
    State(bridge): State<SessionBridge>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let mut events = bridge.events();
    // On a node that nobody has listened on for a while it takes a moment until all events arrive.
    events.ready().await;
    let events = events.map(|item| {
        let text = match item {
            Ok(SessionEvent::Set(set)) if set.is_new => "a session began".to_owned(),
            Ok(SessionEvent::Set(_)) => "a session changed".to_owned(),
            Ok(SessionEvent::Destroy(end)) => format!("a session ended: {}", end.reason.as_str()),
            Ok(_) => "something else".to_owned(),
            // A slow reader learns how many events it missed, and goes on.
            Err(lagged) => lagged.to_string(),
        };
        Ok(Event::default().data(text))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bridge = SessionBridge::builder()
        .signing_keys(["replace me by 32 or more random bytes"])
        .max_age(std::time::Duration::from_secs(5))
        .build()
        .await?;
    let mut log = bridge.events();
    tokio::spawn(async move {
        while let Some(item) = log.recv().await {
            match item {
                Ok(event) => println!("{event:?}"),
                Err(lagged) => println!("{lagged}"),
            }
        }
    });
    let app = Router::new()
        .route("/visit", post(visit))
        .layer(bridge.layer())
        .route("/events", get(watch))
        .with_state(bridge);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum_io_session::serve(listener, app).await?;
    Ok(())
}
