//! A connection's socket, watched.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_util::task::task_tracker::TaskTrackerToken;

use super::connection::Connection;
use super::connections::Entry;

/// A socket that notes what it reads, and that the server can end whoever holds it: after an upgrade
/// that is a task of the application's.
#[derive(Debug)]
pub(super) struct Io<I> {
    inner: I,
    entry: Entry,
    /// The server waits for this one, upgraded or not.
    _open: TaskTrackerToken,
}

impl<I> Io<I> {
    pub(super) fn new(inner: I, entry: Entry, open: TaskTrackerToken) -> Self {
        Self { inner, entry, _open: open }
    }

    fn connection(&self) -> &Arc<Connection> {
        self.entry.connection()
    }

    fn check(&self) -> io::Result<()> {
        if self.connection().is_aborted() { Err(stopped()) } else { Ok(()) }
    }
}

fn stopped() -> io::Error {
    io::Error::new(io::ErrorKind::ConnectionAborted, "the server has stopped")
}

impl<I: AsyncRead + Unpin> AsyncRead for Io<I> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.check()?;
        let before = buffer.filled().len();
        let polled = Pin::new(&mut self.inner).poll_read(context, buffer);
        match &polled {
            Poll::Ready(Ok(())) if buffer.filled().len() > before => self.connection().read(),
            Poll::Pending if self.connection().is_aborted_else_wake(context.waker()) => {
                return Poll::Ready(Err(stopped()));
            }
            Poll::Ready(_) | Poll::Pending => {}
        }
        polled
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Io<I> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.inner).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.check()?;
        Pin::new(&mut self.inner).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}
