//! A browser's part of HTTP: cookies, and nodes used in turn.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::Value;

/// An answer has to come by then.
const LIMIT: Duration = Duration::from_secs(60);

/// One browser profile. Clones share nothing, as if the profile was copied.
#[derive(Debug)]
pub struct Browser {
    agent: ureq::Agent,
    urls: Vec<String>,
    turn: Arc<AtomicUsize>,
    jar: Mutex<BTreeMap<String, String>>,
}

/// What a node answered.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub text: String,
    /// The body, if it is JSON; null otherwise.
    pub json: Value,
    /// The `Set-Cookie` lines.
    pub set_cookies: Vec<String>,
    /// The seconds of `Retry-After`.
    pub retry_after: Option<String>,
}

impl Answer {
    /// The session's id in the answers of the session routes.
    pub fn session_id(&self) -> Option<&str> {
        self.json["sessionId"].as_str()
    }

    /// The session in the answers of the session routes.
    pub fn session(&self) -> &Value {
        &self.json["session"]
    }

    /// Itself.
    ///
    /// # Panics
    /// If the status is not 200.
    #[track_caller]
    pub fn ok(self) -> Self {
        assert_eq!(self.status, 200, "{}", self.text);
        self
    }
}

impl Clone for Browser {
    fn clone(&self) -> Self {
        Self {
            agent: self.agent.clone(),
            urls: self.urls.clone(),
            turn: self.turn.clone(),
            jar: Mutex::new(self.jar.lock().unwrap().clone()),
        }
    }
}

impl Browser {
    /// A new profile for these nodes.
    pub fn new(urls: &[&str]) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // A node may be killed: no request must meet a connection that is gone.
            .max_idle_connections(0)
            .timeout_global(Some(LIMIT));
        Self {
            agent: config.build().into(),
            urls: urls.iter().map(|&url| url.to_owned()).collect(),
            turn: Arc::default(),
            jar: Mutex::default(),
        }
    }

    /// A copy whose requests all go to this node.
    #[must_use]
    pub fn at(&self, url: &str) -> Self {
        Self { urls: vec![url.to_owned()], ..self.clone() }
    }

    /// The `Cookie` header.
    ///
    /// # Panics
    /// Never.
    pub fn cookies(&self) -> String {
        let jar = self.jar.lock().unwrap();
        jar.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("; ")
    }

    /// A cookie's value.
    ///
    /// # Panics
    /// Never.
    pub fn cookie(&self, name: &str) -> Option<String> {
        self.jar.lock().unwrap().get(name).cloned()
    }

    /// The session's id in the cookie of this name: after a signature, and before a dot and the
    /// cookie's own end.
    ///
    /// # Panics
    /// If the cookie is no session cookie.
    pub fn session_in(&self, name: &str) -> Option<String> {
        let cookie = self.cookie(name)?;
        let signed = cookie.split('.').next().unwrap_or_default();
        Some(signed[signed.len() - 43..].to_owned())
    }

    /// Takes a cookie from elsewhere.
    ///
    /// # Panics
    /// Never.
    pub fn adopt(&self, name: &str, value: &str) {
        self.jar.lock().unwrap().insert(name.to_owned(), value.to_owned());
    }

    /// Forgets a cookie.
    ///
    /// # Panics
    /// Never.
    pub fn forget(&self, name: &str) {
        self.jar.lock().unwrap().remove(name);
    }

    /// `GET`.
    ///
    /// # Panics
    /// If no answer comes.
    pub fn get(&self, path: &str) -> Answer {
        self.try_get(path).unwrap_or_else(|error| panic!("GET {path}: {error}"))
    }

    /// `POST` without a body.
    ///
    /// # Panics
    /// If no answer comes.
    pub fn post(&self, path: &str) -> Answer {
        self.try_post(path, &Value::Null).unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// `POST` with JSON.
    ///
    /// # Panics
    /// If no answer comes.
    pub fn post_json(&self, path: &str, body: &Value) -> Answer {
        self.try_post(path, body).unwrap_or_else(|error| panic!("POST {path}: {error}"))
    }

    /// `GET` from a node that may be gone.
    ///
    /// # Errors
    /// If no answer comes.
    pub fn try_get(&self, path: &str) -> Result<Answer, ureq::Error> {
        let request = self.agent.get(self.url(path)).header("cookie", self.cookies());
        self.take(request.call()?)
    }

    /// `POST` to a node that may be gone; null is no body.
    ///
    /// # Errors
    /// If no answer comes.
    pub fn try_post(&self, path: &str, body: &Value) -> Result<Answer, ureq::Error> {
        let request = self.agent.post(self.url(path)).header("cookie", self.cookies());
        let answer = if body.is_null() {
            request.send_empty()?
        } else {
            request.content_type("application/json").send(body.to_string())?
        };
        self.take(answer)
    }

    /// At the next node.
    fn url(&self, path: &str) -> String {
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        format!("{}{path}", self.urls[turn % self.urls.len()])
    }

    fn take(&self, mut answer: ureq::http::Response<ureq::Body>) -> Result<Answer, ureq::Error> {
        let text = answer.body_mut().read_to_string()?;
        let header = |name: &str| -> Vec<String> {
            let values = answer.headers().get_all(name).iter();
            values.map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned()).collect()
        };
        let set_cookies = header("set-cookie");
        for line in &set_cookies {
            let pair = line.split(';').next().unwrap_or_default();
            let Some((name, value)) = pair.split_once('=') else { continue };
            let mut jar = self.jar.lock().unwrap();
            if line.to_ascii_lowercase().contains("max-age=0") {
                jar.remove(name);
            } else {
                jar.insert(name.to_owned(), value.to_owned());
            }
        }
        Ok(Answer {
            status: answer.status().as_u16(),
            json: serde_json::from_str(&text).unwrap_or_default(),
            retry_after: header("retry-after").pop(),
            text,
            set_cookies,
        })
    }
}
