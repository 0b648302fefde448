//! The tower layer.

use std::convert::Infallible;
use std::future::{Future, ready};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response, StatusCode};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::admission::{Admission, Forbidden};
use super::answer::{Answer, Settled};
use super::body::SessionBody;
use super::cookies::CookieKit;
use super::rejection;
use super::request::{Client, RequestState};
use crate::bridge::{OwnEnds, SessionBridge};

/// Gives each request its session. See [`SessionBridge::layer`].
#[derive(Debug, Clone)]
pub struct SessionLayer {
    shared: Arc<Shared>,
}

/// What all clones have in common.
#[derive(Debug)]
struct Shared {
    bridge: SessionBridge,
    kit: CookieKit,
    admission: Admission,
}

impl SessionBridge {
    /// The layer that reads and sets the cookies, refuses requests of other origins, and commits
    /// sessions.
    ///
    /// It goes outside the Socket.IO layer, so that handshakes pass it:
    /// `router.layer(socket_io_layer).layer(bridge.layer())`, or let
    /// [`bridge_session`](crate::bridge_session) do it.
    pub fn layer(&self) -> SessionLayer {
        let kit = CookieKit::new(self.options());
        let shared = Shared { bridge: self.clone(), kit, admission: Admission::new() };
        SessionLayer { shared: Arc::new(shared) }
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionService { inner, shared: self.shared.clone() }
    }
}

/// The service that [`SessionLayer`] makes.
#[derive(Debug, Clone)]
pub struct SessionService<S> {
    inner: S,
    shared: Arc<Shared>,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for SessionService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    ReqBody: Send + 'static,
    ResBody: Body + Send + 'static,
{
    type Response = Response<SessionBody<ResBody>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        let bridge = &self.shared.bridge;
        let passed = request.extensions().get::<Arc<RequestState>>();
        if passed.is_some_and(|state| state.bridge.is_same(bridge)) {
            // The layer was added twice. A second state would know a client of its own.
            let response = self.inner.call(request);
            return Box::pin(async move {
                Ok(response.await?.map(|body| SessionBody::new(body, None)))
            });
        }
        let admitted = match self.shared.admission.admit(bridge, &self.shared.kit, &request) {
            Ok(admitted) => admitted,
            Err(Forbidden) => return Box::pin(ready(Ok(refusal(StatusCode::FORBIDDEN)))),
        };
        if admitted.elsewhere {
            tracing::debug!("a Socket.IO connection was sent to another node");
            return Box::pin(ready(Ok(self.shared.unavailable())));
        }
        let handshake = admitted.handshake;
        let shared = self.shared.clone();
        let presented: Arc<[_]> = admitted.incoming.session_ids().collect();
        if let Some(client) = Client::of(&admitted.incoming) {
            let state = RequestState::new(bridge.clone(), admitted, presented, client, None);
            return match shared.enter(state, handshake, &mut request) {
                Ok(state) => {
                    let handler = self.inner.call(request);
                    Box::pin(async move {
                        let mut handler = pin!(state.own_ends().scope(handler));
                        let response = handler.as_mut().await?;
                        let ends = OwnEnds::of(handler);
                        let mut answer = Answer::new(&state, ends, response.headers());
                        let settled = answer.settle().await;
                        Ok(shared.leave(&state, &answer, settled, response))
                    })
                }
                Err(refusal) => Box::pin(ready(Ok(refusal))),
            };
        }
        // The service that was polled ready is the one to call; its clone waits for the next.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        Box::pin(async move {
            let bridge = shared.bridge.clone();
            let (client, unreachable) = match Client::look_up(&bridge, &presented).await {
                Ok(client) => (client, None),
                Err(error) => {
                    tracing::warn!(%error, "the client of a session could not be looked up");
                    (Client::unknown(), Some(error))
                }
            };
            let state = RequestState::new(bridge, admitted, presented, client, unreachable);
            let state = match shared.enter(state, handshake, &mut request) {
                Ok(state) => state,
                Err(refusal) => return Ok(refusal),
            };
            let mut handler = pin!(state.own_ends().scope(inner.call(request)));
            let response = handler.as_mut().await?;
            let mut answer = Answer::new(&state, OwnEnds::of(handler), response.headers());
            let settled = answer.settle().await;
            Ok(shared.leave(&state, &answer, settled, response))
        })
    }
}

impl Shared {
    fn unavailable<R>(&self) -> Response<SessionBody<R>> {
        let mut response = refusal(StatusCode::SERVICE_UNAVAILABLE);
        rejection::set_retry_after(response.headers_mut(), self.bridge.options().retry_after);
        response
    }

    /// Gives the request its state; or the answer to a handshake that is one too many.
    fn enter<B, R>(
        &self,
        mut state: RequestState,
        handshake: bool,
        request: &mut Request<B>,
    ) -> Result<Arc<RequestState>, Response<SessionBody<R>>> {
        if handshake && !state.begin_engine() {
            self.bridge.counters().refused_handshakes.add(1);
            tracing::debug!("too many Engine.IO connections wait for a socket");
            return Err(self.unavailable());
        }
        let state = Arc::new(state);
        let extensions = request.extensions_mut();
        if state.engine_io {
            // Where sockets find it. Other handlers have an extractor, which asks the state.
            extensions.insert(state.handshake());
        }
        extensions.insert(state.clone());
        Ok(state)
    }

    /// Makes the handler's response the answer. No `async fn`: it would keep the response once more.
    fn leave<B>(
        &self,
        state: &RequestState,
        answer: &Answer<'_>,
        settled: Settled,
        response: Response<B>,
    ) -> Response<SessionBody<B>> {
        let engine = state.engine().filter(|_| response.status() == StatusCode::OK).cloned();
        let response = response.map(|body| SessionBody::new(body, engine));
        answer.finish(settled, &self.kit, response, SessionBody::empty)
    }
}

fn refusal<B>(status: StatusCode) -> Response<SessionBody<B>> {
    let mut response = Response::new(SessionBody::empty());
    *response.status_mut() = status;
    response
}
