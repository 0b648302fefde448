//! How a connection is closed.

use std::time::Duration;

use axum::extract::ws::{CloseFrame, Message, WebSocket, close_code};

use crate::session::SessionEnd;

/// How long a client may take to answer a close. Then the connection is dropped.
const CLOSE_LIMIT: Duration = Duration::from_secs(1);

/// The codes that connections are closed with; the reason is the word of the end, such as `destroyed` or
/// `shutdown`.
///
/// ```
/// use axum_io_session::web::ws::CloseCodes;
///
/// let codes = CloseCodes::default().ended(1008);
/// assert_eq!((codes.ended, codes.shutdown), (1008, 1001));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CloseCodes {
    /// The session has ended or was sealed. Default: 4401.
    pub ended: u16,
    /// The node shuts down. Default: 1001, going away.
    pub shutdown: u16,
    /// There is no session, and [`require_session`](super::SessionUpgrade::require_session) was called.
    /// Default: 1008, policy violation.
    pub refused: u16,
    /// The session can't be followed now. Default: 1013, try again later.
    pub unavailable: u16,
}

impl Default for CloseCodes {
    fn default() -> Self {
        Self {
            ended: 4401,
            shutdown: close_code::AWAY,
            refused: close_code::POLICY,
            unavailable: close_code::AGAIN,
        }
    }
}

impl CloseCodes {
    /// For the end of a session.
    ///
    /// # Panics
    /// If the code may not be sent: those are 1000 to 1003, 1007 to 1014, and 3000 to 4999.
    #[must_use]
    pub const fn ended(mut self, code: u16) -> Self {
        self.ended = checked(code);
        self
    }

    /// For a shutdown.
    ///
    /// # Panics
    /// As [`ended`](Self::ended).
    #[must_use]
    pub const fn shutdown(mut self, code: u16) -> Self {
        self.shutdown = checked(code);
        self
    }

    /// For a connection without a session where one is required.
    ///
    /// # Panics
    /// As [`ended`](Self::ended).
    #[must_use]
    pub const fn refused(mut self, code: u16) -> Self {
        self.refused = checked(code);
        self
    }

    /// For a session that can't be followed.
    ///
    /// # Panics
    /// As [`ended`](Self::ended).
    #[must_use]
    pub const fn unavailable(mut self, code: u16) -> Self {
        self.unavailable = checked(code);
        self
    }

    pub(super) fn of_end(&self, end: &SessionEnd) -> CloseFrame {
        let code = match end {
            SessionEnd::Ended(_) => self.ended,
            SessionEnd::Shutdown => self.shutdown,
        };
        frame(code, end.as_str())
    }
}

const fn checked(code: u16) -> u16 {
    let may = matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999);
    assert!(may, "a close code is 1000 to 1003, 1007 to 1014, or 3000 to 4999");
    code
}

pub(super) fn frame(code: u16, reason: &'static str) -> CloseFrame {
    CloseFrame { code, reason: reason.into() }
}

/// Closes a connection: sends the frame, and reads until the client has answered, because what is left
/// unread would reset the connection before the client has read the frame.
pub(super) async fn close(mut socket: WebSocket, frame: CloseFrame) {
    let closing = async {
        if socket.send(Message::Close(Some(frame))).await.is_ok() {
            while let Some(Ok(_)) = socket.recv().await {}
        }
    };
    // A client that does not answer is dropped.
    let _ = tokio::time::timeout(CLOSE_LIMIT, closing).await;
}
