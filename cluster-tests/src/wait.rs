//! Waiting for a condition.

use std::time::{Duration, Instant};

/// Asks again until there is an answer.
///
/// # Panics
/// If there is none within the limit.
pub fn until<T>(what: &str, limit: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < deadline, "never happened within {limit:?}: {what}");
        std::thread::sleep(Duration::from_millis(15));
    }
}
