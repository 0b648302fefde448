//! A browser's part of HTTP: cookies, over a router without a network.

use std::collections::BTreeMap;

use axum::Router;
use axum::body::Body;
use axum::http::{HeaderMap, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;

/// One browser profile.
#[derive(Clone, Default)]
pub struct Browser {
    pub jar: BTreeMap<String, String>,
}

pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }

    /// The `Set-Cookie` lines of this name.
    pub fn set_cookies(&self, name: &str) -> Vec<String> {
        self.headers
            .get_all(header::SET_COOKIE)
            .iter()
            .map(|line| line.to_str().unwrap().to_owned())
            .filter(|line| line.starts_with(&format!("{name}=")))
            .collect()
    }

    /// The only `Set-Cookie` line of this name.
    pub fn set_cookie(&self, name: &str) -> Option<String> {
        let mut lines = self.set_cookies(name);
        assert!(lines.len() < 2, "{lines:?}");
        lines.pop()
    }
}

impl Browser {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn cookie_header(&self) -> String {
        let pairs: Vec<_> =
            self.jar.iter().map(|(name, value)| format!("{name}={value}")).collect();
        pairs.join("; ")
    }

    pub fn request(&self, method: &str, uri: &str) -> axum::http::request::Builder {
        let mut request = Request::builder().method(method).uri(uri);
        if !self.jar.is_empty() {
            request = request.header(header::COOKIE, self.cookie_header());
        }
        request
    }

    pub async fn get(&mut self, app: &Router, uri: &str) -> Answer {
        let request = self.request("GET", uri).body(Body::empty()).unwrap();
        self.send(app, request).await
    }

    pub async fn post(&mut self, app: &Router, uri: &str, body: &str) -> Answer {
        let request = self.request("POST", uri).body(Body::from(body.to_owned())).unwrap();
        self.send(app, request).await
    }

    /// Sends a request and takes over its cookies.
    pub async fn send(&mut self, app: &Router, request: Request<Body>) -> Answer {
        let answer = send(app, request).await;
        for line in answer.headers.get_all(header::SET_COOKIE) {
            let cookie = cookie::Cookie::parse(line.to_str().unwrap().to_owned()).unwrap();
            if cookie.max_age().is_some_and(cookie::time::Duration::is_zero) {
                self.jar.remove(cookie.name());
            } else {
                self.jar.insert(cookie.name().to_owned(), cookie.value().to_owned());
            }
        }
        answer
    }
}

pub async fn send(app: &Router, request: Request<Body>) -> Answer {
    let response = app.clone().oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: parts.status,
        headers: parts.headers,
        body: String::from_utf8_lossy(&body).into_owned(),
    }
}
