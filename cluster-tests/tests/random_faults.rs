//! Load on three nodes while nodes, the network and Redis fail at random.
//!
//! `FAULT_SECONDS` (default 20) is how long; `SEED` repeats the choices, though not the timing.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cluster_tests::{
    Answer, Browser, Came, Cluster, Journal, Ledger, Proxy, Random, Redis, RedisOptions, Socket,
    Sockets, until,
};
use serde_json::{Value, json};

/// Longer than the time between two audits.
const LIMIT: Duration = Duration::from_secs(90);
/// A call that a node can't answer now.
const PATIENCE: Duration = Duration::from_secs(20);
const SEATS: usize = 5;
const CALLERS: usize = 3;

/// A client with one session, which several callers use. After its end the seat gets another one.
struct Guest {
    browser: Browser,
    session: String,
    sockets: Vec<Socket>,
}

struct World {
    urls: Vec<String>,
    sockets: Sockets,
    ledger: Ledger,
    seats: Vec<Mutex<Arc<Guest>>>,
    left: Mutex<Vec<Arc<Guest>>>,
    over: AtomicBool,
}

impl World {
    fn url(&self, random: &mut Random) -> &str {
        &self.urls[random.below(self.urls.len())]
    }

    /// A new client; a node that is away is asked again, or another one.
    fn guest(&self, random: &mut Random) -> Arc<Guest> {
        let (browser, session) = until("a session begins", LIMIT, || {
            let browser = Browser::new(&[self.url(random)]);
            let begun = Instant::now();
            let answer = browser.try_post("/session/inc", &Value::Null).ok()?;
            let (session, n) = count(&answer)?;
            self.ledger.note(begun, Came::Counted { session: session.clone(), n });
            Some((browser, session))
        });
        let urls = self.urls.iter();
        let sockets =
            urls.filter_map(|url| self.sockets.try_open(&browser, url, PATIENCE)).collect();
        Arc::new(Guest { browser, session, sockets })
    }

    fn act(&self, seat: usize, random: &mut Random) {
        let guest = self.seats[seat].lock().unwrap().clone();
        let browser = guest.browser.at(self.url(random));
        let session = guest.session.clone();
        let begun = Instant::now();
        let came = match random.below(100) {
            0..30 => {
                let answer = browser.try_get("/session").ok();
                answer.and_then(|a| count(&a)).map(|(session, n)| Came::Read { session, n })
            }
            30..65 => by_http(&browser, session),
            65..97 => guest
                .sockets
                .get(random.below(guest.sockets.len()))
                .and_then(|socket| by_socket(socket, session)),
            _ => {
                let answer = browser.try_post("/logout", &Value::Null);
                let next = match answer {
                    Ok(answer) if answer.status == 200 => Came::Ended { session },
                    _ => Came::PerhapsEnded { session },
                };
                self.ledger.note(begun, next);
                let next = self.guest(random);
                let last = std::mem::replace(&mut *self.seats[seat].lock().unwrap(), next);
                self.left.lock().unwrap().push(last);
                None
            }
        };
        if let Some(came) = came {
            self.ledger.note(begun, came);
        }
    }
}

fn count(answer: &Answer) -> Option<(String, i64)> {
    Some((answer.session_id()?.to_owned(), answer.session()["n"].as_i64()?))
}

/// Counts in the session, and never begins another one.
fn by_http(browser: &Browser, session: String) -> Option<Came> {
    match browser.try_post("/probe/hold?ms=5", &Value::Null) {
        Ok(answer) if answer.status == 200 => {
            Some(Came::Counted { session, n: answer.json.as_f64().unwrap() as i64 })
        }
        // It says that it was not done.
        Ok(answer) if [404, 409].contains(&answer.status) => None,
        Ok(answer) => {
            assert_eq!(answer.status, 503, "{}", answer.text);
            Some(Came::PerhapsCounted { session })
        }
        Err(_) => Some(Came::PerhapsCounted { session }),
    }
}

fn by_socket(socket: &Socket, session: String) -> Option<Came> {
    if !socket.connected() {
        return None;
    }
    let Ok(answer) = socket.begin("session:inc", &[]).recv_timeout(PATIENCE) else {
        return Some(Came::PerhapsCounted { session });
    };
    match answer["ok"].as_bool() {
        Some(true) => Some(Came::Counted { session, n: answer["session"]["n"].as_i64().unwrap() }),
        _ if answer["error"] == "missing-session" => None,
        _ => Some(Came::PerhapsCounted { session }),
    }
}

/// One fault, from its begin to its end. Returns its name.
fn fault(
    random: &mut Random,
    redis: &mut Redis,
    cluster: &mut Cluster,
    proxies: &[Proxy],
) -> &'static str {
    let at = random.below(proxies.len());
    let for_a_while = Duration::from_millis(200 + random.below(2800) as u64);
    let lasts = |begin: &dyn Fn(), end: &dyn Fn()| {
        begin();
        std::thread::sleep(for_a_while);
        end();
    };
    let (proxy, heal) = (&proxies[at], &|| proxies[at].heal());
    match random.below(11) {
        0 => {
            lasts(&|| cluster[at].freeze(), &|| cluster[at].thaw());
            "node frozen"
        }
        1 => {
            cluster[at].kill();
            cluster[at].start_again();
            "node killed"
        }
        2 => {
            proxy.cut();
            "connections cut"
        }
        3 => {
            proxy.half_open();
            "connections half-open"
        }
        4 => {
            lasts(&|| proxy.stall(), heal);
            "network stalled"
        }
        5 => {
            lasts(&|| proxy.refuse(), heal);
            "connections refused"
        }
        6 => {
            lasts(&|| proxy.delay(Duration::from_millis(30)), heal);
            "network slow"
        }
        7 => {
            redis.kill();
            redis.start_again();
            "Redis killed"
        }
        8 => {
            lasts(&|| redis.pause(), &|| redis.resume());
            "Redis frozen"
        }
        9 => {
            redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]);
            "subscriptions killed"
        }
        _ => {
            redis.cli(&["SCRIPT", "FLUSH"]);
            "scripts forgotten"
        }
    }
}

#[test]
fn no_acknowledged_update_is_lost_and_no_socket_stays_on_a_dead_session() {
    let seconds = std::env::var("FAULT_SECONDS").map_or(20, |text| text.parse().unwrap());
    let mut random = Random::seeded();
    // Its data survives: all that is acknowledged has to be there.
    let mut redis = RedisOptions::new().durable().start();
    let proxies: Vec<_> = (0..3).map(|_| Proxy::start(&redis.address())).collect();
    let by_proxy: Vec<_> = proxies.iter().map(Proxy::redis_url).collect();
    let mut cluster = Cluster::start_at(&by_proxy, &["--lease", "2s"]);
    let journals: Vec<_> = cluster.nodes().iter().map(Journal::follow).collect();
    let mut world = World {
        urls: cluster.urls().into_iter().map(str::to_owned).collect(),
        sockets: Sockets::start(),
        ledger: Ledger::default(),
        seats: Vec::new(),
        left: Mutex::default(),
        over: AtomicBool::new(false),
    };
    world.seats = (0..SEATS).map(|_| Mutex::new(world.guest(&mut random))).collect();

    let mut faults: BTreeMap<&str, usize> = BTreeMap::new();
    let world = &world;
    std::thread::scope(|scope| {
        for caller in 0..SEATS * CALLERS {
            let mut random = random.part();
            scope.spawn(move || {
                while !world.over.load(Ordering::Relaxed) {
                    world.act(caller % SEATS, &mut random);
                }
            });
        }
        let end = Instant::now() + Duration::from_secs(seconds);
        while Instant::now() < end {
            std::thread::sleep(Duration::from_millis(100 + random.below(700) as u64));
            let name = fault(&mut random, &mut redis, &mut cluster, &proxies);
            *faults.entry(name).or_default() += 1;
        }
        world.over.store(true, Ordering::Relaxed);
    });

    let totals = world.ledger.totals();
    println!("{faults:?}\n{totals:?}");
    assert!(totals.counted as u64 > seconds, "the load is worth its name: {totals:?}");
    let seated: Vec<_> = world.seats.iter().map(|seat| seat.lock().unwrap().clone()).collect();
    for guest in &seated {
        for url in &world.urls {
            let begun = Instant::now();
            let answer = until("all nodes serve again", LIMIT, || {
                guest.browser.at(url).try_get("/session").ok().filter(|answer| answer.status == 200)
            });
            let (session, n) = count(&answer).expect("a session that nobody ended is there");
            world.ledger.note(begun, Came::Read { session, n });
        }
    }
    world.ledger.check();
    for guest in world.left.lock().unwrap().iter().chain(&seated) {
        healed(guest);
    }
    for journal in &journals {
        let mut ends: BTreeMap<String, usize> = BTreeMap::new();
        for event in journal.told().iter().filter(|event| event.reason().is_some()) {
            *ends.entry(event.session().unwrap().to_owned()).or_default() += 1;
        }
        assert!(ends.values().all(|times| *times == 1), "ends are told once: {ends:?}");
    }
}

/// Sockets see what HTTP sees, and have heard of an end once.
fn healed(guest: &Guest) {
    let now = guest.browser.get("/session").ok();
    let alive = now.session_id() == Some(&guest.session);
    for socket in guest.sockets.iter().filter(|socket| socket.connected()) {
        let ends = || {
            let told = socket.messages().into_iter();
            told.filter(|m| m.name == "session:destroy" && m.payload["sessionId"] == guest.session)
                .count()
        };
        if alive {
            assert_eq!(socket.ok("session:get")["session"], *now.session());
            assert_eq!(ends(), 0, "the session lives");
        } else {
            until("a socket hears of the end", LIMIT, || {
                (ends() > 0 || !socket.connected()).then_some(())
            });
            assert!(ends() <= 1, "told once");
            if !socket.connected() {
                continue;
            }
            assert_eq!(socket.call("session:get", &[])["error"], json!("missing-session"));
        }
    }
}
