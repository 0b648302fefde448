//! A bad network between a node and Redis.

use std::collections::HashSet;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// How the network is.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Network {
    /// Good.
    Whole,
    /// New connections are closed at once.
    Refusing,
    /// Each piece comes this much later.
    Late(Duration),
    /// This many bytes a second go through each connection, each way.
    Narrow(usize),
    /// Connections are taken, and nothing goes through until it is whole again.
    Stalled,
    /// Connections are taken, and what is sent is lost. They are cut when it is whole again.
    Swallowing,
}

/// How a command gets no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    /// It goes through, and the connection is cut before the answer.
    Answer,
    /// It goes through, and the connection stays open, but nothing comes back on it any more.
    Silence,
    /// The connection is cut before it goes through.
    Command,
    /// The connection is cut for the client, and the command arrives half a second later.
    Late,
}

/// How late that is.
const LATE: Duration = Duration::from_millis(500);

/// A TCP proxy. Dropping it cuts all connections.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    target: String,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug)]
struct State {
    network: Network,
    closed: bool,
    next: u64,
    /// Connections up to this one carry nothing any more.
    dead: u64,
    /// The next command with all these words gets no answer.
    losing: Option<(Vec<String>, Loss)>,
    /// Connections on which nothing comes back.
    mute: Vec<(u64, Loss)>,
    /// How many answers were lost.
    lost: usize,
    /// Connections that have subscribed to something.
    subscribers: HashSet<u64>,
    /// Nothing goes through those.
    holds_messages: bool,
    connections: Vec<(u64, TcpStream, TcpStream)>,
}

impl Proxy {
    /// Begins to forward connections to an address such as `127.0.0.1:6379`.
    ///
    /// # Panics
    /// If there is no free port.
    pub fn start(target: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound listener has an address");
        let state = State {
            network: Network::Whole,
            closed: false,
            next: 0,
            dead: 0,
            losing: None,
            mute: Vec::new(),
            lost: 0,
            subscribers: HashSet::new(),
            holds_messages: false,
            connections: Vec::new(),
        };
        let shared = Arc::new(Shared {
            target: target.to_owned(),
            state: Mutex::new(state),
            changed: Condvar::new(),
        });
        let accepting = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if accepting.state.lock().unwrap().closed {
                    return;
                }
                accepting.take(client);
            }
        });
        Self { address, shared }
    }

    /// Such as `127.0.0.1:41234`.
    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// Such as `redis://127.0.0.1:41234`.
    pub fn redis_url(&self) -> String {
        format!("redis://{}", self.address)
    }

    /// Number of open connections.
    ///
    /// # Panics
    /// Never.
    pub fn connections(&self) -> usize {
        self.shared.state.lock().unwrap().connections.len()
    }

    /// Cuts all connections. New ones are taken.
    ///
    /// # Panics
    /// Never.
    pub fn cut(&self) {
        self.shared.state.lock().unwrap().cut();
    }

    /// Cuts all connections, and closes new ones at once.
    ///
    /// # Panics
    /// Never.
    pub fn refuse(&self) {
        self.turn(Network::Refusing);
        self.cut();
    }

    /// Each piece of data, both ways, comes this much later.
    ///
    /// # Panics
    /// Never.
    pub fn delay(&self, late: Duration) {
        self.turn(Network::Late(late));
    }

    /// Each connection carries no more than this, each way.
    ///
    /// # Panics
    /// Never.
    pub fn throttle(&self, bytes_per_second: usize) {
        self.turn(Network::Narrow(bytes_per_second.max(1)));
    }

    /// Connections stay open and new ones are taken, but nothing goes through, until
    /// [`heal`](Self::heal) delivers it: a cable that is out for a while.
    ///
    /// # Panics
    /// Never.
    pub fn stall(&self) {
        self.turn(Network::Stalled);
    }

    /// Nothing goes through connections that have subscribed to something, until
    /// [`heal`](Self::heal) delivers it. All others are good.
    ///
    /// # Panics
    /// Never.
    pub fn hold_messages(&self) {
        self.shared.state.lock().unwrap().holds_messages = true;
    }

    /// Connections stay open and new ones are taken, but what is sent is lost.
    /// [`heal`](Self::heal) cuts them.
    ///
    /// # Panics
    /// Never.
    pub fn swallow(&self) {
        self.turn(Network::Swallowing);
    }

    /// Connections that are open now stay open and carry nothing any more, as when the other
    /// machine lost its power. New ones are good.
    ///
    /// # Panics
    /// Never.
    pub fn half_open(&self) {
        let mut state = self.shared.state.lock().unwrap();
        state.dead = state.next;
    }

    /// The next command that has all these words gets no answer.
    ///
    /// # Panics
    /// Never.
    pub fn lose(&self, words: &[&str], loss: Loss) {
        let words = words.iter().map(|&word| word.to_owned()).collect();
        self.shared.state.lock().unwrap().losing = Some((words, loss));
    }

    /// How many commands got no answer by [`lose`](Self::lose).
    ///
    /// # Panics
    /// Never.
    pub fn lost(&self) -> usize {
        self.shared.state.lock().unwrap().lost
    }

    /// All is well again.
    ///
    /// # Panics
    /// Never.
    pub fn heal(&self) {
        self.turn(Network::Whole);
    }

    fn turn(&self, network: Network) {
        let mut state = self.shared.state.lock().unwrap();
        if state.network == Network::Swallowing {
            // Parts of their data are missing: they must not go on.
            state.cut();
        }
        state.network = network;
        state.holds_messages &= network != Network::Whole;
        self.shared.changed.notify_all();
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        {
            let mut state = self.shared.state.lock().unwrap();
            state.closed = true;
            state.cut();
            self.shared.changed.notify_all();
        }
        // Wakes the thread that accepts.
        let _ = TcpStream::connect(self.address);
    }
}

impl State {
    /// Marks the connection if an answer on it is to be lost; or loses the command.
    fn loses_command(&mut self, id: u64, sent: &[u8]) -> Option<Loss> {
        let has = |word: &String| sent.windows(word.len()).any(|part| part == word.as_bytes());
        let (_, loss) = self.losing.take_if(|(words, _)| words.iter().all(has))?;
        self.lost += 1;
        if matches!(loss, Loss::Command | Loss::Late) {
            return Some(loss);
        }
        self.mute.push((id, loss));
        None
    }

    /// Whether what comes back on this connection is lost. The server has done what it answers to.
    fn loses_answer(&self, id: u64) -> Option<Loss> {
        self.mute.iter().find(|(other, _)| *other == id).map(|(_, loss)| *loss)
    }

    fn cut(&mut self) {
        for (_, client, server) in self.connections.drain(..) {
            // They may be closed already.
            let _ = client.shutdown(Shutdown::Both);
            let _ = server.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn take(self: &Arc<Self>, client: TcpStream) {
        if self.state.lock().unwrap().network == Network::Refusing {
            return;
        }
        // A server that is away: the client sees its connection closed.
        let Ok(server) = TcpStream::connect(&self.target) else { return };
        let clones =
            (client.try_clone(), server.try_clone(), client.try_clone(), server.try_clone());
        let (Ok(client_in), Ok(server_in), Ok(client_kept), Ok(server_kept)) = clones else {
            return;
        };
        let _ = client.set_nodelay(true);
        let _ = server.set_nodelay(true);
        let id = {
            let mut state = self.state.lock().unwrap();
            state.next += 1;
            let id = state.next;
            state.connections.push((id, client_kept, server_kept));
            id
        };
        let (there, back) = (self.clone(), self.clone());
        std::thread::spawn(move || there.pump(id, client_in, server, true));
        std::thread::spawn(move || back.pump(id, server_in, client, false));
    }

    /// Carries data one way until one end closes.
    fn pump(&self, id: u64, mut from: TcpStream, mut to: TcpStream, there: bool) {
        let mut buffer = [0; 16 * 1024];
        loop {
            let size = match self.state.lock().unwrap().network {
                Network::Narrow(rate) => (rate / 20).clamp(1, buffer.len()),
                _ => buffer.len(),
            };
            let count = match from.read(&mut buffer[..size]) {
                Ok(0) => break,
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(_) => break,
            };
            if buffer[..count].windows(9).any(|word| word == b"SUBSCRIBE") {
                self.state.lock().unwrap().subscribers.insert(id);
            }
            let lost = match there {
                true => self.state.lock().unwrap().loses_command(id, &buffer[..count]),
                false => self.state.lock().unwrap().loses_answer(id),
            };
            match lost {
                Some(Loss::Answer | Loss::Command) => break,
                Some(Loss::Late) => {
                    let _ = from.shutdown(Shutdown::Both);
                    std::thread::sleep(LATE);
                }
                Some(Loss::Silence) => continue,
                None => {}
            }
            if self.passes(id, count) && to.write_all(&buffer[..count]).is_err() {
                break;
            }
        }
        // What one end closes is closed for the other.
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
        self.state.lock().unwrap().connections.retain(|(other, ..)| *other != id);
    }

    /// Waits as long as the network says; whether the data goes on at all.
    fn passes(&self, id: u64, count: usize) -> bool {
        let mut state = self.state.lock().unwrap();
        let held = |state: &State| state.holds_messages && state.subscribers.contains(&id);
        while (state.network == Network::Stalled || held(&state)) && !state.closed {
            state = self.changed.wait(state).unwrap();
        }
        if id <= state.dead {
            return false;
        }
        let network = state.network;
        drop(state);
        match network {
            Network::Late(late) => std::thread::sleep(late),
            Network::Narrow(rate) => {
                std::thread::sleep(Duration::from_secs_f64(count as f64 / rate as f64));
            }
            Network::Swallowing => return false,
            Network::Whole | Network::Refusing | Network::Stalled => {}
        }
        true
    }
}
