//! What options may be.

use std::time::Duration;

use super::{DAY, MINUTE, OnDestroy, Options, SECOND, SameSite, Secure};
use crate::error::{Error, Result};
use crate::session::MAX_AGE_RANGE;

impl Options {
    /// Checks every option, and settles those that follow from others.
    pub(crate) fn settle(mut self) -> Result<Self> {
        if !self.client_key_given {
            self.client_key = format!("{}.cid", self.key);
        }
        self.check_names()?;
        self.check_cookies()?;
        self.check_keys()?;
        self.check_times()?;
        self.check_sizes()?;
        self.check_messages()?;
        self.origins.settle()?;
        Ok(self)
    }

    pub(crate) fn check_cleanup_interval(interval: Duration) -> Result<()> {
        in_range("auto_cleanup_interval", interval, MINUTE, DAY, "1 minute to 1 day")
    }

    fn check_names(&self) -> Result<()> {
        for (option, name) in [("cookie_name", &self.key), ("client_key", &self.client_key)] {
            if name.is_empty() || name.len() > 128 || !name.bytes().all(is_token) {
                return Err(Error::option(
                    option,
                    format_args!("{name:?}"),
                    "a cookie name: 1 to 128 characters, visible ASCII without separators such as ; , = \" ( ) /",
                ));
            }
        }
        if self.key.eq_ignore_ascii_case(&self.client_key) {
            return Err(Error::option(
                "client_key",
                format_args!("{:?}", self.client_key),
                "different from `cookie_name`",
            ));
        }
        // An application of Koa's on the same host signs `key` by a cookie of this name, and
        // browsers would mix them up.
        let signs = |a: &str, b: &str| a.eq_ignore_ascii_case(&format!("{b}.sig"));
        if signs(&self.client_key, &self.key) || signs(&self.key, &self.client_key) {
            return Err(Error::option(
                "client_key",
                format_args!("{:?}", self.client_key),
                "neither `key` with `.sig` nor `key` without it: Koa keeps signatures in such cookies",
            ));
        }
        Ok(())
    }

    fn check_cookies(&mut self) -> Result<()> {
        if !self.path.starts_with('/') || !is_attribute(&self.path) {
            return Err(Error::option(
                "path",
                format_args!("{:?}", self.path),
                "a path that begins with / and has neither ; nor control characters",
            ));
        }
        if let Some(domain) = &self.domain
            && (domain.is_empty()
                || domain.len() > 253
                || !domain.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-')))
        {
            return Err(Error::option(
                "domain",
                format_args!("{domain:?}"),
                "a host name, or not set for this host only",
            ));
        }
        for name in [&self.key, &self.client_key] {
            let host = has_prefix(name, "__Host-");
            if !host && !has_prefix(name, "__Secure-") {
                continue;
            }
            if self.secure == Secure::No {
                return Err(Error::option(
                    "secure",
                    "No",
                    &format!("Yes or Auto, because browsers refuse the cookie {name:?} otherwise"),
                ));
            }
            self.secure = Secure::Yes;
            if host && (self.path != "/" || self.domain.is_some()) {
                return Err(Error::option(
                    if self.domain.is_some() { "domain" } else { "path" },
                    self.domain.as_deref().unwrap_or(&self.path),
                    &format!("the default, because browsers refuse the cookie {name:?} otherwise"),
                ));
            }
        }
        if self.same_site == SameSite::None && self.secure != Secure::Yes {
            return Err(Error::option(
                "same_site",
                "None",
                "Lax or Strict, or joined by `secure(Secure::Yes)`: browsers refuse it otherwise",
            ));
        }
        Ok(())
    }

    fn check_keys(&self) -> Result<()> {
        for (index, key) in self.keys.iter().enumerate() {
            let name = format!("signing_keys[{index}]");
            if key.is_empty() {
                return Err(Error::option(&name, "empty", "at least 32 random bytes"));
            }
            if key.len() < 32 && !self.allow_weak_keys {
                return Err(Error::option(
                    &name,
                    format_args!("{} bytes long", key.len()),
                    "at least 32 random bytes, or allowed by `allow_weak_keys(true)` for trying things out",
                ));
            }
        }
        Ok(())
    }

    fn check_times(&self) -> Result<()> {
        let (min, max) = (*MAX_AGE_RANGE.start(), *MAX_AGE_RANGE.end());
        in_range("max_age", self.lifetime.max_age, min, max, "1 second to 1 year")?;
        if let Some(open) = self.lifetime.open_max_age {
            in_range("open_max_age", open, min, max, "1 second to 1 year")?;
        }
        in_range(
            "drain_window",
            self.drain_window,
            Duration::ZERO,
            10 * MINUTE,
            "0 to 10 minutes",
        )?;
        in_range("join_window", self.join_window, Duration::ZERO, MINUTE, "at most 1 minute")?;
        let overlap = self.renew_overlap;
        in_range("renew_overlap", overlap, Duration::ZERO, 5 * MINUTE, "at most 5 minutes")?;
        if let Some(cap) = self.lifetime.absolute_max_age {
            in_range("absolute_max_age", cap, min, 10 * max, "1 second to 10 years")?;
        }
        in_range("client_max_age", self.client_max_age, SECOND, 400 * DAY, "1 second to 400 days")?;
        let tenth = Duration::from_millis(100);
        in_range(
            "lease_duration",
            self.lease,
            tenth,
            10 * MINUTE,
            "100 milliseconds to 10 minutes",
        )?;
        let wait = self.acquire_timeout;
        in_range(
            "acquire_timeout",
            wait,
            SECOND / 1000,
            10 * MINUTE,
            "1 millisecond to 10 minutes",
        )?;
        in_range("max_hold", self.max_hold, tenth, DAY, "100 milliseconds to 1 day")?;
        in_range("retry_after", self.retry_after, SECOND, DAY, "1 second to 1 day")?;
        if let Some(interval) = self.auto_cleanup_interval {
            Self::check_cleanup_interval(interval)?;
        }
        if let OnDestroy::Disconnect { grace } = self.on_destroy {
            let hour = 60 * MINUTE;
            in_range("on_destroy.grace", grace, Duration::ZERO, hour, "at most 1 hour")?;
        }
        Ok(())
    }

    fn check_sizes(&self) -> Result<()> {
        let size = |name, value: usize, min: usize, max: usize| {
            if (min..=max).contains(&value) {
                return Ok(());
            }
            Err(Error::option(name, value, &format!("{min} to {max}")))
        };
        size("max_payload", self.max_payload, 2, 1 << 30)?;
        size("lease_queue_limit", self.lease_queue_limit, 1, 1_000_000)?;
        size("pending_sockets_limit", self.pending_sockets_limit, 1, 1_000_000)?;
        size("trusted_proxies", self.trusted_proxies, 0, 16)?;
        size("event_capacity", self.event_capacity, 16, 1 << 20)
    }

    fn check_messages(&self) -> Result<()> {
        let messages = &self.messages;
        let names = [
            ("messages.set", &messages.set),
            ("messages.destroy", &messages.destroy),
            ("messages.cleanup", &messages.cleanup),
            ("messages.moving", &messages.moving),
        ];
        // Names that Socket.IO clients keep for themselves.
        let reserved = [
            "connect",
            "connect_error",
            "disconnect",
            "disconnecting",
            "newListener",
            "removeListener",
        ];
        for (option, name) in names {
            if let Some(name) = name
                && (name.is_empty() || reserved.contains(&name.as_str()))
            {
                return Err(Error::option(
                    option,
                    format_args!("{name:?}"),
                    "an event name that Socket.IO does not reserve, or None",
                ));
            }
        }
        Ok(())
    }
}

fn in_range(name: &str, value: Duration, min: Duration, max: Duration, range: &str) -> Result<()> {
    if (min..=max).contains(&value) {
        return Ok(());
    }
    Err(Error::option(name, format_args!("{value:?}"), range))
}

/// RFC 6265 cookie names are RFC 9110 tokens.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn is_attribute(text: &str) -> bool {
    text.bytes().all(|b| b != b';' && (0x20..0x7f).contains(&b))
}

/// Browsers compare these prefixes without case.
fn has_prefix(name: &str, prefix: &str) -> bool {
    name.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}
