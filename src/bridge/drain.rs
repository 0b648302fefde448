//! A node that is about to stop sends its sockets to others.

use std::time::Duration;

use serde_json::json;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use super::attach;
use super::attachment::Message;
use super::connection;
use super::core::Core;

/// Between two looks at what is left.
const STEP: Duration = Duration::from_millis(20);

/// How long closing the connections that are left may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(5);

/// Sends the sockets away within the window, and closes the connections of those that stay.
pub(super) async fn drain(core: &Core) {
    core.draining.cancel();
    core.drained.get_or_init(|| send_away(core)).await;
}

async fn send_away(core: &Core) {
    let (begun, window) = (Instant::now(), core.options.drain_window);
    // The last ones need some of the window to move.
    tell_to_move(core, begun, window * 4 / 5).await;
    while !core.sockets.is_empty() && begun.elapsed() < window {
        sleep_until((Instant::now() + STEP).min(begun + window)).await;
    }
    connection::close_all(core);
    if core.sockets.is_empty() {
        return;
    }
    tracing::debug!(sockets = core.sockets.len(), "closing the sockets that have not moved");
    if timeout(CLOSE_LIMIT, close_connections(core)).await.is_err() {
        tracing::warn!("sockets are still connected {CLOSE_LIMIT:?} after they were closed");
    }
}

/// Tells all sockets, evenly over the time: if all came to the other nodes at once, those would be
/// overrun. The sockets of a client are told together.
async fn tell_to_move(core: &Core, begun: Instant, spread: Duration) {
    let Some(name) = &core.options.messages.moving else { return };
    let sockets = core.sockets.all();
    for (at, socket) in sockets.iter().enumerate() {
        let share = at as f64 / sockets.len() as f64;
        let due = begun + spread.mul_f64(share);
        if due > Instant::now() {
            sleep_until(due).await;
        }
        if core.sockets.is_empty() {
            return;
        }
        let left = core.options.drain_window.saturating_sub(begun.elapsed());
        let payload = json!({ "withinMs": u64::try_from(left.as_millis()).unwrap_or(u64::MAX) });
        // One that can't be told is closed at the end. Streams and plain WebSockets end: their clients
        // come back by themselves, or as the application has it.
        let _ = socket.sink().emit(&Message { name: name.clone(), payload });
        socket.sink().shut_down();
    }
}

/// Closes the connections and not only the sockets: clients come back by themselves then.
async fn close_connections(core: &Core) {
    // Those that are closed count no more, although something of the application's may keep them.
    let open = || core.sockets.all().into_iter().find(|socket| socket.sink().is_open());
    while let Some(socket) = open() {
        // All of its Socket.IO server.
        socket.sink().close_server().await;
        sleep(STEP).await;
    }
    // Socket.IO forgets those that it closes, and never says that they are gone.
    attach::detach_closed_sockets(core);
}

#[cfg(test)]
mod tests {
    use std::future::{Future, ready};
    use std::pin::Pin;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::{Arc, Mutex};

    use super::*;
    use crate::bridge::{Attachment, SessionBridge, SinkError, SocketPairing, SocketSink};
    use crate::session::ClientId;

    /// Sockets that only note when they were asked to move.
    #[derive(Clone)]
    struct Sockets {
        begun: Instant,
        told: Arc<Mutex<Vec<Duration>>>,
        open: Arc<AtomicBool>,
    }

    impl SocketSink for Sockets {
        fn emit(&self, _: &Message) -> Result<(), SinkError> {
            self.told.lock().unwrap().push(self.begun.elapsed());
            Ok(())
        }

        fn is_open(&self) -> bool {
            self.open.load(Ordering::Relaxed)
        }

        fn disconnect(&self) -> bool {
            true
        }

        fn close_server(&self) -> Pin<Box<dyn Future<Output = ()> + Send>> {
            self.open.store(false, Ordering::Relaxed);
            Box::pin(ready(()))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn ten_thousand_sockets_move_at_an_even_rate_and_what_stays_is_closed_at_the_end() {
        let window = Duration::from_secs(20);
        let bridge = SessionBridge::builder().drain_window(window).build().await.unwrap();
        let open = Arc::new(AtomicBool::new(true));
        let sockets = Sockets { begun: Instant::now(), told: Arc::default(), open };
        let mut guards = Vec::new();
        for _ in 0..10_000 {
            let (client, sink) = (ClientId::generate(), sockets.clone());
            let watch = bridge.watch(client).await.unwrap();
            let pairing = SocketPairing::Strict;
            let socket = Attachment::new(client, pairing, None, false, sockets.begun, sink);
            guards.push(watch.attach(socket).unwrap());
        }
        bridge.drain().await;
        assert!(sockets.begun.elapsed() >= window && !sockets.is_open());
        let told = sockets.told.lock().unwrap();
        assert_eq!(told.len(), 10_000);
        let of = |second: u64| told.iter().filter(|at| at.as_secs() == second).count();
        let average = told.len() / 20;
        let peak = (0..20).map(of).max().unwrap();
        assert!(peak * 10 <= average * 13, "{peak} in a second, {average} on average");
        assert_eq!(bridge.stats().sockets, 0);
    }
}
