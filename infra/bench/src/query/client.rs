//! A client of the query API that takes little of the machine that it shares with it: HTTP/1.1 over one connection that is kept,
//! no more of it than this one service's answers need, and every answer checked.

use std::time::Instant;

use anyhow::{Context as _, bail, ensure};
use e2e::random::Random;
use local_stack::StackInfo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::fill::order_id;
use crate::closed_loop::{Client, Step};

const SEED: u64 = 5;
/// What is asked, up to the order's id and after it.
const BODY_BEFORE_ID: &str = r#"{"query":"query Order($id: ID!) { order(id: $id) { orderId status paymentStatus version position total { minorUnits currencyCode } } }","variables":{"id":""#;
const BODY_AFTER_ID: &str = r#""}}"#;
/// The start of an answer to that, up to the order's id.
const ANSWER_BEFORE_ID: &str = r#"{"data":{"order":{"orderId":""#;
const UUID_CHARS: usize = 36;
/// More than any answer here has.
const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// One connection, over which one order after the other is asked for.
pub(super) struct Asker {
    connection: TcpStream,
    /// The head of every request and the body up to the order's id; the ids are all equally long.
    request_before_id: String,
    request: Vec<u8>,
    answer: Vec<u8>,
    random: Random,
    orders: u64,
}

impl Asker {
    /// So many connections of one caller. Those of different runs ask for different orders.
    pub(super) async fn connect_many(info: &StackInfo, count: usize, orders: u64, run: usize) -> anyhow::Result<Vec<Self>> {
        let token = info.tokens.get("service").context("the stack has a token for services")?;
        let address = info.query_api.strip_prefix("http://").context("the query API's URL starts with http://")?;
        let body_bytes = BODY_BEFORE_ID.len() + UUID_CHARS + BODY_AFTER_ID.len();
        let request_before_id = format!(
            "POST /graphql HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {token}\r\nContent-Type: application/json\r\nAccept: application/json\r\n\
             Content-Length: {body_bytes}\r\n\r\n{BODY_BEFORE_ID}"
        );
        let mut askers = Vec::with_capacity(count);
        for number in 0..count {
            let connection = TcpStream::connect(address).await.context("connect to the query API")?;
            connection.set_nodelay(true).context("send requests at once")?;
            askers.push(Self {
                connection,
                request_before_id: request_before_id.clone(),
                request: Vec::new(),
                answer: Vec::with_capacity(4 * 1024),
                random: Random::of(SEED, (run * count + number) as u64),
                orders,
            });
        }
        Ok(askers)
    }

    /// Sends the request and returns the body of its answer, which must have status 200.
    async fn ask(&mut self) -> anyhow::Result<&[u8]> {
        self.connection.write_all(&self.request).await.context("send a request")?;
        self.answer.clear();
        loop {
            let read = self.connection.read_buf(&mut self.answer).await.context("read an answer")?;
            ensure!(read > 0, "the query API closed a connection");
            ensure!(self.answer.len() <= ANSWER_BYTES_MAX, "an answer has more than {ANSWER_BYTES_MAX} bytes");
            if let Some(body) = body_range(&self.answer)? {
                return Ok(&self.answer[body]);
            }
        }
    }
}

impl Client for Asker {
    async fn step(&mut self) -> anyhow::Result<Step> {
        let id = order_id(self.random.below(self.orders)).to_string();
        self.request.clear();
        for part in [self.request_before_id.as_str(), &id, BODY_AFTER_ID] {
            self.request.extend_from_slice(part.as_bytes());
        }
        let started = Instant::now();
        let answer = self.ask().await?;
        let took = started.elapsed();
        let rest = answer.strip_prefix(ANSWER_BEFORE_ID.as_bytes());
        let is_right = rest.is_some_and(|rest| rest.starts_with(id.as_bytes()) && rest.ends_with(b"}}}}"));
        ensure!(is_right, "asked for order {id}, the query API answers {}", String::from_utf8_lossy(answer));
        Ok(Step { took, counts: true })
    }
}

/// Where the body of an HTTP/1.1 answer is, once all of it is there. Fails unless it has status 200 and says its length.
fn body_range(answer: &[u8]) -> anyhow::Result<Option<std::ops::Range<usize>>> {
    const END_OF_HEAD: &[u8] = b"\r\n\r\n";
    let Some(head_bytes) = answer.windows(END_OF_HEAD.len()).position(|window| window == END_OF_HEAD) else { return Ok(None) };
    let head = std::str::from_utf8(&answer[..head_bytes]).context("an answer's head is not text")?;
    if !head.starts_with("HTTP/1.1 200 ") {
        bail!("the query API answers {}", String::from_utf8_lossy(answer));
    }
    let length = head.lines().skip(1).find_map(|line| {
        let (name, value) = line.split_once(':')?;
        name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>())
    });
    let length = length.context("an answer does not say its length")?.context("an answer says its length wrongly")?;
    let begins = head_bytes + END_OF_HEAD.len();
    ensure!(answer.len() <= begins + length, "an answer is longer than it says");
    Ok((answer.len() == begins + length).then_some(begins..begins + length))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(answer: &str) -> anyhow::Result<Option<&str>> {
        Ok(body_range(answer.as_bytes())?.map(|range| &answer[range]))
    }

    #[test]
    fn a_body_is_there_once_all_of_it_is() {
        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nContent-Length: 4\r\n\r\n{ }\n";
        for length in 0..answer.len() {
            assert_eq!(body(&answer[..length]).unwrap(), None, "after {length} bytes");
        }
        assert_eq!(body(answer).unwrap(), Some("{ }\n"));
    }

    #[test]
    fn what_is_no_complete_200_is_refused() {
        assert!(body("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n").is_err());
        assert!(body("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n").is_err());
        assert!(body("HTTP/1.1 200 OK\r\ncontent-length: many\r\n\r\n").is_err());
        assert!(body("HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\n{}").is_err());
    }
}
