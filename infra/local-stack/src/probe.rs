//! Waiting until a process is ready: polling with a deadline, and the few lines of HTTP that a health check needs.

use std::io::{self, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

/// How long one health check may take.
const HTTP_TIMEOUT: Duration = Duration::from_secs(2);
/// Polling starts fast, because most waits are short, and slows down to this.
const POLL_INTERVAL_MAX: Duration = Duration::from_millis(50);

/// Polls `condition` until it gives a value, fails, or `deadline` has passed (then `Ok(None)`).
pub(crate) fn poll<T, E>(deadline: Duration, mut condition: impl FnMut() -> Result<Option<T>, E>) -> Result<Option<T>, E> {
    let started = Instant::now();
    let mut interval = Duration::from_millis(2);
    loop {
        if let Some(value) = condition()? {
            return Ok(Some(value));
        }
        if started.elapsed() >= deadline {
            return Ok(None);
        }
        thread::sleep(interval);
        interval = (interval * 3 / 2).min(POLL_INTERVAL_MAX);
    }
}

/// Status and body of `GET path` from a loopback server without TLS.
pub(crate) fn http_get(port: u16, path: &str) -> io::Result<(u16, String)> {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let mut connection = TcpStream::connect_timeout(&address, HTTP_TIMEOUT)?;
    connection.set_read_timeout(Some(HTTP_TIMEOUT))?;
    connection.set_write_timeout(Some(HTTP_TIMEOUT))?;
    write!(connection, "GET {path} HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n")?;
    let mut answer = Vec::new();
    connection.read_to_end(&mut answer)?;
    let answer = String::from_utf8_lossy(&answer);
    let status = answer.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)).and_then(|status| status.parse().ok());
    let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
    match status {
        Some(status) => Ok((status, body.to_owned())),
        None => Err(io::Error::new(io::ErrorKind::InvalidData, "the answer is not HTTP/1")),
    }
}
