//! Events, as a stream and by handlers.

use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures_util::FutureExt as _;

use super::SessionBridge;
use crate::bridge::events::SessionEvents;
use crate::session::{Cleanup, SessionDestroy, SessionEvent, SessionSet};

impl SessionBridge {
    /// All events from now on: every change and every end of a session, on any node. On a node that has
    /// run without listeners, from [`ready`](SessionEvents::ready) on.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> axum_io_session::Result<()> {
    /// use axum_io_session::{SessionBridge, SessionEvent};
    ///
    /// let bridge = SessionBridge::builder().build().await?;
    /// let mut events = bridge.events();
    /// bridge.notify_store_cleanup(3);
    /// match events.recv().await {
    ///     Some(Ok(SessionEvent::Cleanup(event))) => assert_eq!(event.cleared, 3),
    ///     other => panic!("{other:?}"),
    /// }
    /// # bridge.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn events(&self) -> SessionEvents {
        self.core.events.subscribe()
    }

    /// Calls `handler` with each event, one after the other, until the bridge shuts down.
    ///
    /// The handler delays only itself. If it panics, the panic is logged and it is called
    /// with the next event. If it is too slow, missed events are logged and counted
    /// ([`Stats::events_missed`](crate::bridge::Stats::events_missed)).
    pub fn on_event<F, Fut>(&self, mut handler: F)
    where
        F: FnMut(SessionEvent) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        let mut events = self.events();
        let weak = Arc::downgrade(&self.core);
        self.core.spawn(async move {
            while let Some(item) = events.recv().await {
                match item {
                    Ok(event) => {
                        // The call itself may panic as well as its future.
                        let call = AssertUnwindSafe(async { handler(event).await });
                        if call.catch_unwind().await.is_err() {
                            tracing::error!("a session event handler panicked");
                        }
                    }
                    Err(lagged) => {
                        tracing::warn!(%lagged, "a session event handler has a gap");
                        if let Some(core) = weak.upgrade() {
                            core.counters.events_missed.add(lagged.0);
                        }
                    }
                }
            }
        });
    }

    /// [`on_event`](Self::on_event) for created, attached and changed sessions.
    #[doc(alias = "sessionSet")]
    pub fn on_session_set<F, Fut>(&self, handler: F)
    where
        F: FnMut(SessionSet) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_some(handler, |event| match event {
            SessionEvent::Set(event) => Some(event),
            _ => None,
        });
    }

    /// [`on_event`](Self::on_event) for ends of sessions.
    #[doc(alias = "sessionDestroy")]
    pub fn on_session_destroy<F, Fut>(&self, handler: F)
    where
        F: FnMut(SessionDestroy) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_some(handler, |event| match event {
            SessionEvent::Destroy(event) => Some(event),
            _ => None,
        });
    }

    /// [`on_event`](Self::on_event) for cleanups.
    #[doc(alias = "cleanup")]
    pub fn on_cleanup<F, Fut>(&self, handler: F)
    where
        F: FnMut(Cleanup) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_some(handler, |event| match event {
            SessionEvent::Cleanup(event) => Some(event),
            _ => None,
        });
    }

    fn on_some<T, F, Fut>(&self, mut handler: F, pick: fn(SessionEvent) -> Option<T>)
    where
        T: 'static,
        F: FnMut(T) -> Fut + Send + 'static,
        Fut: Future<Output = ()> + Send + 'static,
    {
        self.on_event(move |event| {
            let call = pick(event).map(&mut handler);
            async {
                if let Some(call) = call {
                    call.await;
                }
            }
        });
    }
}
