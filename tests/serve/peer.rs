//! A server under test, and a client that sends what it likes.

use std::future::IntoFuture as _;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use axum_io_session::serve::Serve;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Every wait of a test ends by then.
pub const LIMIT: Duration = Duration::from_secs(20);

pub async fn until_in<T>(wait: impl Future<Output = T>) -> T {
    tokio::time::timeout(LIMIT, wait).await.expect("in time")
}

pub struct Server {
    pub address: SocketAddr,
    signal: CancellationToken,
    running: JoinHandle<std::io::Result<()>>,
}

impl Server {
    pub async fn start(
        app: Router,
        set: impl FnOnce(Serve<TcpListener>) -> Serve<TcpListener>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let signal = CancellationToken::new();
        let serve = set(axum_io_session::serve(listener, app));
        let serve = serve.with_graceful_shutdown(signal.clone().cancelled_owned());
        Self { address, signal, running: tokio::spawn(serve.into_future()) }
    }

    pub async fn peer(&self) -> Peer<TcpStream> {
        Peer::connect(self.address).await
    }

    /// Asks it to stop.
    pub fn signal(&self) {
        self.signal.cancel();
    }

    pub fn runs(&self) -> bool {
        !self.running.is_finished()
    }

    /// Waits until it has stopped.
    pub async fn ended(self) {
        until_in(self.running).await.unwrap().unwrap();
    }

    pub async fn stop(self) {
        self.signal();
        self.ended().await;
    }
}

/// One connection to a server.
pub struct Peer<T> {
    stream: T,
}

impl Peer<TcpStream> {
    pub async fn connect(address: SocketAddr) -> Self {
        Self::over(until_in(TcpStream::connect(address)).await.unwrap())
    }

    pub fn address(&self) -> SocketAddr {
        self.stream.local_addr().unwrap()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin> Peer<T> {
    pub fn over(stream: T) -> Self {
        Self { stream }
    }

    pub async fn send(&mut self, text: &str) {
        until_in(self.stream.write_all(text.as_bytes())).await.unwrap();
    }

    pub async fn get(&mut self, path: &str) -> String {
        self.send(&format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n")).await;
        self.answer().await
    }

    pub async fn post(&mut self, path: &str, body: &str) -> String {
        let length = body.len();
        let head = format!("POST {path} HTTP/1.1\r\nHost: test\r\nContent-Length: {length}\r\n");
        self.send(&format!("{head}\r\n{body}")).await;
        self.answer().await
    }

    /// One answer, whose length it says.
    pub async fn answer(&mut self) -> String {
        let mut text = String::new();
        loop {
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head.to_lowercase().split_once("content-length: ").map(|(_, rest)| {
                    rest.split("\r\n").next().unwrap().trim().parse::<usize>().unwrap()
                });
                if body.len() >= length.unwrap_or(0) {
                    return text;
                }
            }
            let more = self.more().await;
            assert!(!more.is_empty(), "closed after {text:?}");
            text += &more;
        }
    }

    /// What comes next; empty at the end.
    pub async fn more(&mut self) -> String {
        let mut bytes = vec![0; 4096];
        // A reset is an end too: the server closes what it has not read.
        let length = until_in(self.stream.read(&mut bytes)).await.unwrap_or(0);
        String::from_utf8(bytes[..length].to_vec()).unwrap()
    }

    /// Waits for the end; returns what came before it.
    pub async fn until_closed(&mut self) -> String {
        let mut text = String::new();
        loop {
            let more = self.more().await;
            if more.is_empty() {
                return text;
            }
            text += &more;
        }
    }
}
