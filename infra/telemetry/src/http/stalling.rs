//! A connection whose client has to read its answers.

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, Sleep, sleep},
};

/// How the reads and writes of a connection go.
#[derive(Debug, Default)]
pub(super) struct Writes {
    pending_since: Mutex<Option<Instant>>,
    has_read: AtomicBool,
}

impl Writes {
    /// For how long the client has taken nothing of what there is to be sent; none if there is nothing.
    pub(super) fn pending_for(&self) -> Option<Duration> {
        self.pending_since.lock().unwrap_or_else(PoisonError::into_inner).map(|since| since.elapsed())
    }

    /// Whether the client has said anything.
    pub(super) fn has_read(&self) -> bool {
        self.has_read.load(Relaxed)
    }

    fn begin_to_wait(&self) {
        *self.pending_since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn go_on(&self) {
        *self.pending_since.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Fails with [`io::ErrorKind::TimedOut`] where nothing of what is written is taken for `stall_max`.
#[derive(Debug)]
pub(super) struct Stalling {
    stream: TcpStream,
    stall_max: Duration,
    writes: Arc<Writes>,
    /// Runs while a write waits.
    stalled: Option<Pin<Box<Sleep>>>,
}

impl Stalling {
    pub(super) fn new(stream: TcpStream, stall_max: Duration, writes: Arc<Writes>) -> Self {
        Self { stream, stall_max, writes, stalled: None }
    }

    fn judge<T>(&mut self, cx: &mut Context<'_>, written: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if written.is_ready() {
            if self.stalled.take().is_some() {
                self.writes.go_on();
            }
            return written;
        }
        let stalled = match &mut self.stalled {
            Some(stalled) => stalled,
            none => {
                self.writes.begin_to_wait();
                none.insert(Box::pin(sleep(self.stall_max)))
            }
        };
        stalled.as_mut().poll(cx).map(|()| Err(io::Error::new(io::ErrorKind::TimedOut, "the client does not read its answer")))
    }
}

impl AsyncRead for Stalling {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(cx, buffer);
        if read.is_ready() {
            self.writes.has_read.store(true, Relaxed);
        }
        read
    }
}

impl AsyncWrite for Stalling {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buffer);
        self.judge(cx, written)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffers: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, buffers);
        self.judge(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
