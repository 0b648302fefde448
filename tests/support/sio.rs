//! As much of a Socket.IO client as the tests need: websocket only, protocol 5.

use std::collections::VecDeque;
use std::net::SocketAddr;

use axum::Router;
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

use super::LIMIT;

/// Serves a router until the test ends.
pub async fn serve(app: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(axum_io_session::serve(listener, app).into_future());
    address
}

/// A connected socket in one namespace.
pub struct Client {
    stream: WebSocketStream<MaybeTlsStream<TcpStream>>,
    namespace: String,
    next_ack: u64,
    events: VecDeque<(String, Value)>,
    pub set_cookies: Vec<String>,
    pub disconnected: bool,
    /// By a packet, not by the end of its connection.
    pub was_sent_away: bool,
}

impl Client {
    pub async fn connect(address: SocketAddr, cookies: &str) -> Self {
        Self::connect_to(address, "/", cookies).await.unwrap()
    }

    /// [`connect_to`](Self::connect_to) the default namespace, for a task of its own.
    pub async fn connect_to_owned(address: SocketAddr, cookies: String) -> Result<Self, String> {
        Self::connect_to(address, "/", &cookies).await
    }

    /// `Err` holds the server's `connect_error` message.
    pub async fn connect_to(
        address: SocketAddr,
        namespace: &str,
        cookies: &str,
    ) -> Result<Self, String> {
        let uri = format!("ws://{address}/socket.io/?EIO=4&transport=websocket");
        let mut request = uri.into_client_request().unwrap();
        if !cookies.is_empty() {
            request.headers_mut().insert("cookie", HeaderValue::from_str(cookies).unwrap());
        }
        let opening = tokio_tungstenite::connect_async(request);
        let (stream, response) = tokio::time::timeout(LIMIT, opening).await.unwrap().unwrap();
        let set_cookies = response
            .headers()
            .get_all("set-cookie")
            .iter()
            .map(|line| line.to_str().unwrap().to_owned())
            .collect();
        let mut client = Self {
            stream,
            namespace: namespace.to_owned(),
            next_ack: 0,
            events: VecDeque::new(),
            set_cookies,
            disconnected: false,
            was_sent_away: false,
        };
        assert!(client.packet().await.unwrap().starts_with('0'));
        client.join().await?;
        Ok(client)
    }

    /// Sends CONNECT for the namespace, the first time or again.
    pub async fn join(&mut self) -> Result<(), String> {
        let prefix = self.prefix();
        self.send(format!("40{prefix}")).await;
        loop {
            let packet = self.packet().await.expect("an open connection");
            if packet.starts_with("40") {
                self.disconnected = false;
                return Ok(());
            }
            if let Some(rest) = packet.strip_prefix("44") {
                let error: Value = serde_json::from_str(self.strip(rest)).unwrap();
                return Err(error["message"].as_str().unwrap().to_owned());
            }
        }
    }

    fn prefix(&self) -> String {
        if self.namespace == "/" { String::new() } else { format!("{},", self.namespace) }
    }

    fn strip<'a>(&self, rest: &'a str) -> &'a str {
        rest.strip_prefix(&self.prefix()).unwrap_or(rest)
    }

    async fn send(&mut self, text: String) {
        self.stream.send(Message::Text(Utf8Bytes::from(text))).await.unwrap();
    }

    /// The next packet; `None` once the connection is closed. Answers pings.
    async fn packet(&mut self) -> Option<String> {
        loop {
            let message = tokio::time::timeout(LIMIT, self.stream.next()).await.expect("a packet");
            match message {
                Some(Ok(Message::Text(text))) if text.as_str() == "2" => {
                    self.send("3".into()).await;
                }
                Some(Ok(Message::Text(text))) => return Some(text.as_str().to_owned()),
                Some(Ok(Message::Close(_)) | Err(_)) | None => return None,
                Some(Ok(_)) => {}
            }
        }
    }

    /// Takes one packet in; an acknowledgement is returned.
    async fn take(&mut self) -> Option<(u64, Value)> {
        let Some(packet) = self.packet().await else {
            self.disconnected = true;
            return None;
        };
        if let Some(rest) = packet.strip_prefix("42") {
            let event: Value = serde_json::from_str(self.strip(rest)).unwrap();
            self.events.push_back((event[0].as_str().unwrap().to_owned(), event[1].clone()));
        } else if let Some(rest) = packet.strip_prefix("43") {
            let rest = self.strip(rest);
            let split = rest.find('[').unwrap();
            let values: Value = serde_json::from_str(&rest[split..]).unwrap();
            return Some((rest[..split].parse().unwrap(), values[0].clone()));
        } else if packet.starts_with("41") {
            self.disconnected = true;
            self.was_sent_away = true;
        }
        None
    }

    /// Emits without asking for an acknowledgement.
    pub async fn emit(&mut self, event: &str, payload: Value) {
        let text = format!("42{}{}", self.prefix(), json!([event, payload]));
        self.send(text).await;
    }

    /// Emits and waits for the acknowledgement.
    pub async fn call(&mut self, event: &str, payload: Value) -> Value {
        let answer = self.try_call(event, payload).await;
        answer.unwrap_or_else(|| panic!("disconnected before {event} was acknowledged"))
    }

    /// Emits and waits for the acknowledgement, or until the server disconnects the socket.
    pub async fn try_call(&mut self, event: &str, payload: Value) -> Option<Value> {
        let id = self.next_ack;
        self.next_ack += 1;
        let text = format!("42{}{id}{}", self.prefix(), json!([event, payload]));
        if !self.disconnected {
            self.send(text).await;
        }
        while !self.disconnected {
            if let Some((answered, value)) = self.take().await
                && answered == id
            {
                return Some(value);
            }
        }
        None
    }

    /// The next message from the server.
    pub async fn event(&mut self) -> (String, Value) {
        loop {
            if let Some(event) = self.events.pop_front() {
                return event;
            }
            assert!(!self.disconnected, "disconnected before a message came");
            self.take().await;
        }
    }

    /// Messages that are there by now: a call's acknowledgement marks the end.
    pub async fn events_before(&mut self, call: &str) -> Vec<(String, Value)> {
        self.call(call, Value::Null).await;
        self.events.drain(..).collect()
    }

    /// Waits until the server disconnects the socket.
    pub async fn until_disconnected(&mut self) {
        while !self.disconnected {
            self.take().await;
        }
    }

    /// Messages up to the end: the server disconnects the socket.
    pub async fn last_events(&mut self) -> Vec<(String, Value)> {
        self.until_disconnected().await;
        self.events.drain(..).collect()
    }

    pub async fn close(mut self) {
        // The server may have closed already.
        let _ = self.stream.close(None).await;
    }
}
