//! Whether a contestant does what all have to do, and the sessions that the loads use.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::time::Duration;

use crate::Result;
use crate::plan::SESSIONS;
use crate::processes::Running;
use crate::sockets::Sockets;

/// The cookies of new sessions, one `Cookie` header each.
pub(crate) fn sessions(running: &Running) -> Result<Vec<String>> {
    let mut client = Client::connect(running.port())?;
    (0..SESSIONS).map(|_| Ok(client.send("POST", "/write", "")?.cookies)).collect()
}

/// The session's counter.
pub(crate) fn counter(running: &Running, cookies: &str) -> Result<u64> {
    Ok(Client::connect(running.port())?.send("GET", "/read", cookies)?.n)
}

/// Writes, reads (at the other node, if there is one), writes by a socket, and ends a session.
pub(crate) fn check(running: &Running) -> Result<()> {
    let mut first = Client::connect(running.port())?;
    let last = running.nodes.last().map_or(running.port(), |node| node.port);
    let mut last = Client::connect(last)?;
    let begun = first.send("POST", "/write", "")?;
    let mut seen = vec![begun.n];
    let cookies = begun.cookies;
    seen.push(first.send("POST", "/write", &cookies)?.n);
    seen.push(last.send("GET", "/read", &cookies)?.n);
    let update = if running.contestant.is_ours() { "/update" } else { "/write" };
    seen.push(last.send("POST", update, &cookies)?.n);
    if running.contestant.has_sockets() {
        let mut sockets = Sockets::connect(running.port(), std::slice::from_ref(&cookies))?;
        sockets.once()?;
    } else {
        first.send("POST", "/write", &cookies)?;
    }
    seen.push(last.send("GET", "/read", &cookies)?.n);
    first.send("POST", "/logout", &cookies)?;
    seen.push(last.send("GET", "/read", &cookies)?.n);
    if seen != [1, 2, 2, 3, 4, 0] {
        return Err(format!("it does not keep the contract: counters {seen:?}").into());
    }
    Ok(())
}

struct Client {
    stream: BufReader<TcpStream>,
}

struct Answer {
    n: u64,
    /// Name and value of the cookies that it sets, as a `Cookie` header has them.
    cookies: String,
}

impl Client {
    fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port))?;
        stream.set_nodelay(true)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        Ok(Self { stream: BufReader::new(stream) })
    }

    fn send(&mut self, method: &str, path: &str, cookies: &str) -> Result<Answer> {
        let cookie =
            if cookies.is_empty() { String::new() } else { format!("Cookie: {cookies}\r\n") };
        let request = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 0\r\n{cookie}\r\n"
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let mut lines = Vec::new();
        loop {
            let mut line = String::new();
            if self.stream.read_line(&mut line)? == 0 {
                return Err(format!("{method} {path}: the connection was closed").into());
            }
            if line.trim().is_empty() {
                break;
            }
            lines.push(line.trim().to_owned());
        }
        let headers = |name: &'static str| {
            lines.iter().filter_map(move |line| {
                let (key, value) = line.split_once(':')?;
                key.eq_ignore_ascii_case(name).then(|| value.trim())
            })
        };
        let length = headers("content-length").next().unwrap_or("0").parse()?;
        let mut body = vec![0; length];
        self.stream.read_exact(&mut body)?;
        if !lines.first().is_some_and(|status| status.contains(" 200 ")) {
            let body = String::from_utf8_lossy(&body);
            return Err(format!("{method} {path}: {:?} {body}", lines.first()).into());
        }
        let n = serde_json::from_slice::<serde_json::Value>(&body)?["n"].as_u64();
        let cookies = headers("set-cookie").filter_map(|cookie| cookie.split(';').next());
        let cookies = cookies.collect::<Vec<_>>().join("; ");
        Ok(Answer { n: n.ok_or("an answer without a counter")?, cookies })
    }
}
