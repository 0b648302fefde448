//! The only right order of layers.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Response};
use axum::routing::{Route, any};
use http::StatusCode;
use tower_layer::{Layer, Stack};
use tower_service::Service;

use crate::bridge::SessionBridge;

/// Where Socket.IO is, unless its layer was given another path.
const PATHS: [&str; 2] = ["/socket.io", "/socket.io/"];

/// Adds Socket.IO and sessions to a router, sessions outside, so that handshakes pass them.
///
/// Everything that is on the router already is inside both. The result can be served by itself, or
/// be mounted below a path by `nest` or `nest_service`: Socket.IO is then at `/path/socket.io`.
///
/// A Socket.IO layer with another path than `/socket.io` (`req_path`) has no route of its own: `nest`
/// leads to it only if the router has a fallback or a route for that path.
///
/// # Panics
/// If the router has a route `/socket.io` or `/socket.io/`.
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
    L: Layer<BelowSockets>,
    L::Service: Service<Request, Error = Infallible> + Clone + Send + Sync + 'static,
    <L::Service as Service<Request>>::Response: IntoResponse + 'static,
    <L::Service as Service<Request>>::Future: Send + 'static,
{
    let sockets = OneEngine(socket_layer.layer(BelowSockets(())));
    // `nest` takes over routes, and of a fallback only one of the application's own.
    let routes = PATHS
        .into_iter()
        .fold(router, |router, path| router.route(path, any(|| ready(StatusCode::NOT_FOUND))));
    // One layer of the router: each costs every request a box for its future and one for its body.
    routes.layer(Stack::new(sockets, bridge.layer()))
}

/// A layer with one Socket.IO engine. The layer of Socket.IO itself makes one each time that it is
/// applied, and a router applies layers once for each route, and to some with each request.
#[derive(Clone)]
struct OneEngine<T>(T);

impl<T: Clone> Layer<Route> for OneEngine<T> {
    type Service = WithSockets<T>;

    fn layer(&self, inner: Route) -> WithSockets<T> {
        WithSockets { sockets: self.0.clone(), inner }
    }
}

/// A route behind the engine.
#[derive(Clone)]
struct WithSockets<T> {
    sockets: T,
    inner: Route,
}

/// What a request finds behind the engine. Requests that the engine keeps hold an empty one.
#[derive(Clone)]
struct Inner(Arc<Mutex<Option<Route>>>);

impl Inner {
    fn take(&self) -> Option<Route> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

type Answer = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

impl<T> Service<Request> for WithSockets<T>
where
    T: Service<Request, Error = Infallible> + Clone + Send + 'static,
    T::Response: IntoResponse,
    T::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Answer {
        let inner = Inner(Arc::new(Mutex::new(Some(self.inner.clone()))));
        request.extensions_mut().insert(inner.clone());
        let mut sockets = self.sockets.clone();
        Box::pin(async move {
            std::future::poll_fn(|context| sockets.poll_ready(context)).await?;
            let response = sockets.call(request).await;
            inner.take();
            response.map(IntoResponse::into_response)
        })
    }
}

/// The service below the Socket.IO layer of [`bridge_session`]: the rest of the application.
#[derive(Debug, Clone)]
pub struct BelowSockets(());

impl Service<Request> for BelowSockets {
    type Response = Response;
    type Error = Infallible;
    type Future = Answer;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request) -> Answer {
        let inner = request.extensions_mut().remove::<Inner>().and_then(|inner| inner.take());
        let Some(mut route) = inner else {
            return Box::pin(ready(Ok(StatusCode::NOT_FOUND.into_response())));
        };
        Box::pin(async move {
            std::future::poll_fn(|context| {
                <Route as Service<Request>>::poll_ready(&mut route, context)
            })
            .await?;
            route.call(request).await
        })
    }
}
