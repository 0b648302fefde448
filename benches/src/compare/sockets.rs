//! The load on sockets: Engine.IO over websockets by hand, as thin as it gets, so that the client takes
//! little of the CPUs that the servers need.

use std::time::{Duration, Instant};

use futures_util::future::{join_all, try_join_all};
use futures_util::{SinkExt as _, StreamExt as _};
use tokio::net::TcpStream;
use tokio::runtime::{Builder, Runtime};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::{WebSocketStream, client_async};

use crate::load::Outcome;
use crate::{Failure, Result};

/// No answer takes longer; one that is lost would hold up the run.
const LOST: Duration = Duration::from_secs(5);

/// Connected sockets. Each sends `session:inc`, waits for the acknowledgement, and sends the next.
#[derive(Debug)]
pub(crate) struct Sockets {
    runtime: Runtime,
    sockets: Vec<Socket>,
}

impl Sockets {
    /// One socket for each of the `Cookie` headers.
    pub(crate) fn connect(port: u16, cookies: &[String]) -> Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let connecting = cookies.iter().map(|cookies| Socket::connect(port, cookies));
        let sockets = runtime.block_on(try_join_all(connecting))?;
        Ok(Self { runtime, sockets })
    }

    /// One event of each socket.
    pub(crate) fn once(&mut self) -> Result<()> {
        let Self { runtime, sockets } = self;
        let calls = sockets.iter_mut().map(Socket::call);
        let answers = runtime.block_on(try_join_all(calls))?;
        if answers.contains(&0) { Err("a socket's increment failed".into()) } else { Ok(()) }
    }

    pub(crate) fn run(&mut self, length: Duration) -> Result<Outcome> {
        let Self { runtime, sockets } = self;
        let begun = Instant::now();
        let runs = runtime
            .block_on(async { join_all(sockets.iter_mut().map(|s| s.run(begun + length))).await });
        let mut outcome = Outcome { elapsed: begun.elapsed().as_secs_f64(), ..Outcome::default() };
        let mut waits = Vec::new();
        for run in runs {
            let run = run?;
            outcome.errors += run.errors;
            waits.extend(run.waits);
        }
        waits.sort_unstable();
        outcome.requests = waits.len() as u64;
        let rank = |share: f64| -> f64 {
            let index = (waits.len() as f64 * share) as usize;
            waits.get(index).map_or(0.0, |wait| wait.as_secs_f64() * 1000.0)
        };
        outcome.p50_ms = rank(0.5);
        outcome.p99_ms = rank(0.99);
        Ok(outcome)
    }
}

#[derive(Debug)]
struct Socket {
    stream: WebSocketStream<TcpStream>,
    /// Number of the next event; its acknowledgement has the same.
    next: u64,
}

#[derive(Default)]
struct Run {
    waits: Vec<Duration>,
    errors: u64,
}

impl Socket {
    async fn connect(port: u16, cookies: &str) -> Result<Self> {
        let url = format!("ws://127.0.0.1:{port}/socket.io/?EIO=4&transport=websocket");
        let mut request = url.into_client_request()?;
        request.headers_mut().insert("cookie", cookies.parse()?);
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        let (stream, _) = client_async(request, stream).await?;
        let mut socket = Self { stream, next: 0 };
        socket.receive('0', "").await?;
        socket.stream.send(Message::text("40")).await?;
        socket.receive('4', "0").await?;
        Ok(socket)
    }

    /// The counter that the acknowledgement has.
    async fn call(&mut self) -> Result<u64> {
        let id = self.next;
        self.next += 1;
        self.stream.send(Message::text(format!("42{id}[\"session:inc\"]"))).await?;
        let text = self.receive('4', &format!("3{id}[")).await?;
        let counter: serde_json::Value = serde_json::from_str(text.trim_end_matches(']'))?;
        Ok(counter["n"].as_u64().unwrap_or(0))
    }

    /// What follows in the first packet that begins so. Events that come before it are passed over:
    /// this crate notifies a session's own sockets of its changes.
    async fn receive(&mut self, engine_packet: char, socket_packet: &str) -> Result<String> {
        let receiving = async {
            loop {
                let message = self.stream.next().await.ok_or("the server closed the socket")??;
                let Ok(text) = message.to_text() else { continue };
                if text == "2" {
                    self.stream.send(Message::text("3")).await?;
                } else if let Some(rest) = text.strip_prefix(engine_packet)
                    && let Some(rest) = rest.strip_prefix(socket_packet)
                {
                    return Ok::<_, Failure>(rest.to_owned());
                }
            }
        };
        let lost =
            |_| format!("a packet that begins with {engine_packet}{socket_packet} did not come");
        tokio::time::timeout(LOST, receiving).await.map_err(lost)?
    }

    async fn run(&mut self, end: Instant) -> Result<Run> {
        let mut run = Run::default();
        while Instant::now() < end {
            let sent = Instant::now();
            let n = self.call().await?;
            run.waits.push(sent.elapsed());
            run.errors += u64::from(n == 0);
        }
        Ok(run)
    }
}
