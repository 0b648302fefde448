//! When all is well again.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::Raised;
use super::testbed::Testbed;
use crate::browser::Browser;
use crate::wait::until;

/// Between two tries at a node.
const PAUSE: Duration = Duration::from_millis(100);
/// All has healed by then, however busy the machine is.
const LIMIT: Duration = Duration::from_secs(60);

/// Waits until every node has begun a session, asked for after this call, and every node has heard
/// of one of each. Returns how long after `since` that was.
///
/// # Panics
/// If it does not come about in time.
pub(super) fn heal(testbed: &Testbed, since: Instant) -> Duration {
    let urls = testbed.cluster.urls();
    let over = AtomicBool::new(false);
    let made: Vec<Mutex<Vec<String>>> = urls.iter().map(|_| Mutex::default()).collect();
    std::thread::scope(|scope| {
        let _over = Raised(&over);
        for (url, made) in urls.iter().zip(&made) {
            let over = &over;
            scope.spawn(move || {
                let mut browsers = Vec::new();
                while !over.load(Ordering::Relaxed) {
                    let browser = Browser::new(&[url]);
                    let answer = browser.try_post("/session/inc", &Value::Null).ok();
                    if let Some(id) = answer.as_ref().and_then(|answer| answer.session_id()) {
                        made.lock().unwrap().push(id.to_owned());
                    }
                    browsers.push(browser);
                    std::thread::sleep(PAUSE);
                }
                // Nothing of it is to stay. What was not acknowledged may be there too.
                for browser in browsers {
                    let answer = browser.try_post("/logout", &Value::Null);
                    assert!(answer.is_ok_and(|answer| answer.status == 200), "{url} serves");
                }
            });
        }
        // Whose session was heard by whom.
        let mut heard = vec![vec![false; urls.len()]; urls.len()];
        until("all nodes serve and hear each other", LIMIT, || {
            for (made, heard) in made.iter().zip(&mut heard) {
                let ids = made.lock().unwrap().clone();
                for (recorder, heard) in testbed.recorders().iter().zip(heard) {
                    *heard = *heard || ids.iter().any(|id| !recorder.of(id).is_empty());
                }
            }
            heard.iter().flatten().all(|heard| *heard).then(|| since.elapsed())
        })
    })
}
