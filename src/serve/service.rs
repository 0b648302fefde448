//! The application as one connection sees it.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::ConnectInfo;
use http::header::CONNECTION;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body::{Body as HttpBody, Frame, SizeHint};
use hyper::body::Incoming;
use tower_service::Service as _;

use super::connection::{Connection, Phase};

/// Answers the requests of one connection.
pub(super) struct App<A> {
    pub(super) router: Router,
    pub(super) client: ConnectInfo<A>,
    pub(super) connection: Arc<Connection>,
    /// From now on each answer is the last one of its connection.
    pub(super) leaving: Arc<AtomicBool>,
}

type Answer = Pin<Box<dyn Future<Output = Result<Response<AnswerBody>, Infallible>> + Send>>;

impl<A: Clone + Send + Sync + 'static> hyper::service::Service<Request<Incoming>> for App<A> {
    type Response = Response<AnswerBody>;
    type Error = Infallible;
    type Future = Answer;

    fn call(&self, mut request: Request<Incoming>) -> Answer {
        let running = Running::begin(self.connection.clone());
        request.extensions_mut().insert(self.client.clone());
        let connection = self.connection.clone();
        let request = request.map(|inner| Body::new(RequestBody { inner, connection }));
        let answer = self.router.clone().call(request);
        let leaving = self.leaving.clone();
        Box::pin(async move {
            let mut answer = answer.await?;
            // Or a balancer sends its next request on a connection that is about to be closed.
            if leaving.load(Ordering::Relaxed) && answer.status() != StatusCode::SWITCHING_PROTOCOLS
            {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(answer.map(|inner| AnswerBody { inner, _running: running }))
        })
    }
}

/// A request, from its header to the end of its answer.
struct Running {
    connection: Arc<Connection>,
}

impl Running {
    fn begin(connection: Arc<Connection>) -> Self {
        connection.enter(Phase::Request);
        Self { connection }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.connection.set_wants_body(false);
        self.connection.enter(Phase::Idle);
    }
}

/// The body of a request, which notes whether the application waits for more of it.
struct RequestBody {
    inner: Incoming,
    connection: Arc<Connection>,
}

impl HttpBody for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let polled = Pin::new(&mut self.inner).poll_frame(context);
        self.connection.set_wants_body(polled.is_pending());
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        self.connection.set_wants_body(false);
    }
}

/// The body of an answer, with which its request ends.
pub(super) struct AnswerBody {
    inner: Body,
    _running: Running,
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Poll::Ready(ready!(Pin::new(&mut self.inner).poll_frame(context)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
