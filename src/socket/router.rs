//! The only right order of layers.

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::Route;
use futures_util::TryFutureExt as _;
use futures_util::future::MapOk;
use std::convert::Infallible;
use std::task::{Context, Poll};
use tower_layer::{Layer, Stack, layer_fn};
use tower_service::Service;

use crate::bridge::SessionBridge;

/// Adds Socket.IO and sessions to a router, sessions outside, so that handshakes pass them.
///
/// Everything that is on the router already is inside both. Serve the result with
/// `router.into_make_service()`: a router with a fallback would give each connection its own
/// Socket.IO engine otherwise, and long polling would fail.
///
/// ```
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> axum_io_session::Result<()> {
/// use axum::Router;
/// use axum_io_session::{SessionBridge, bridge_session, socket::attach};
/// use socketioxide::{SocketIo, extract::SocketRef, handler::ConnectHandler as _};
///
/// let bridge = SessionBridge::builder().build().await?;
/// let (socket_layer, io) = SocketIo::new_layer();
/// io.ns("/", (async |_: SocketRef| {}).with(attach));
/// let app: Router = bridge_session(Router::new(), socket_layer, &bridge);
/// # bridge.shutdown().await;
/// # Ok(())
/// # }
/// ```
#[doc(alias = "bridgeSession")]
pub fn bridge_session<S, L>(router: Router<S>, socket_layer: L, bridge: &SessionBridge) -> Router<S>
where
    S: Clone + Send + Sync + 'static,
    L: Layer<Route> + Clone + Send + Sync + 'static,
    L::Service: Service<Request, Error = Infallible> + Clone + Send + Sync + 'static,
    <L::Service as Service<Request>>::Response: IntoResponse + 'static,
    <L::Service as Service<Request>>::Future: Send + 'static,
    Response: Send,
{
    // One layer of the router: each costs every request a box for its future and one for its body.
    let sockets = Stack::new(socket_layer, layer_fn(Answering));
    router.layer(Stack::new(sockets, bridge.layer()))
}

/// Makes an axum response of what the inner service answers.
#[derive(Clone)]
struct Answering<S>(S);

impl<S> Service<Request> for Answering<S>
where
    S: Service<Request, Error = Infallible>,
    S::Response: IntoResponse,
{
    type Response = Response;
    type Error = Infallible;
    type Future = MapOk<S::Future, fn(S::Response) -> Response>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        self.0.call(request).map_ok(IntoResponse::into_response)
    }
}
