//! Login and logout: a new id at each change of rights, so that an id known before is worthless,
//! and an absolute limit to how long a login lasts.
//!
//! Run it: cargo run --example login
//! Try it: curl -c jar -b jar -X POST localhost:3000/login/ada && curl -b jar localhost:3000/me

use std::time::Duration;

use axum::extract::Path;
use axum::http::StatusCode;
use axum::routing::{get, post};
use axum::{Json, Router};
use axum_io_session::{Error, Session, SessionBridge};
use serde::{Deserialize, Serialize};

/// What the session holds.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(default)]
struct Visit {
    user: Option<String>,
    basket: Vec<String>,
}

async fn login(session: Session, Path(user): Path<String>) -> Result<Json<Visit>, Error> {
    // Check a password or a second factor here.
    let mut visit: Visit = session.typed()?;
    visit.user = Some(user);
    session.replace(&visit)?;
    // What was in the basket stays; the id does not.
    session.rotate()?;
    Ok(Json(visit))
}

async fn me(session: Session) -> Result<Json<Visit>, (StatusCode, String)> {
    let visit: Visit =
        session.typed().map_err(|error| (StatusCode::BAD_REQUEST, error.to_string()))?;
    match visit.user {
        Some(_) => Ok(Json(visit)),
        None => Err((StatusCode::UNAUTHORIZED, "log in first".into())),
    }
}

async fn logout(session: Session) -> Result<(), Error> {
    session.destroy()
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let bridge = SessionBridge::builder()
        .keys(["replace me by 32 or more random bytes"])
        // An hour since the last change, and twelve in all.
        .max_age(Duration::from_secs(60 * 60))
        .absolute_max_age(Duration::from_secs(12 * 60 * 60))
        .renew(true)
        .build()
        .await?;
    let app = Router::new()
        .route("/login/{user}", post(login))
        .route("/me", get(me))
        .route("/logout", post(logout))
        .layer(bridge.layer());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:3000").await?;
    axum::serve(listener, app.into_make_service()).await?;
    Ok(())
}
