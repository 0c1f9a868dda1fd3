//! Subscribers, each of which follows one order after the other over a WebSocket of its own (graphql-transport-ws), from before it is placed
//! until its end.
//!
//! None may miss a status or see one out of order: an order's version goes up by one from 1 on, its position in the log only grows, and its
//! statuses are those of one of the ways that an order can go.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use domain::OrderId;
use futures::{SinkExt as _, StreamExt as _, TryStreamExt as _, future, stream};
use local_stack::{StackInfo, tokens};
use serde::Deserialize;
use serde_json::json;
use time::OffsetDateTime;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_tungstenite::tungstenite::{Message, client::IntoClientRequest as _, protocol::WebSocketConfig};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async_with_config};

use crate::latency::Latencies;
use crate::workload::Workload;

/// Who places the orders, and may see all of them.
const ROLE: &str = "service";
/// Connections that are made at the same time.
const CONNECTING_MAX: usize = 64;
/// What a subscriber has for what comes in; the default is for few connections with much to say.
const READ_BUFFER_BYTES: usize = 4 * 1024;
/// How long a subscriber may hear nothing before something must be wrong.
const SILENCE_MAX: Duration = Duration::from_mins(2);

/// The ways of an order, as far as a workload takes it.
const WAYS: [&[&str]; 5] = [
    &["PLACED", "RESERVED", "CONFIRMED"],
    &["PLACED", "REJECTED"],
    &["PLACED", "CANCELLED"],
    &["PLACED", "RESERVED", "CANCELLED"],
    &["PLACED", "RESERVED", "CONFIRMED", "CANCELLED"],
];

const FOLLOW: &str = "subscription($id: ID!) { orderUpdated(id: $id) { orderId status version position updatedAt } }";

/// Subscribers that are connected, each subscribed to the first order that it follows.
#[derive(Debug)]
pub struct Audience {
    subscribers: Vec<Subscriber>,
}

/// What all of them heard.
#[derive(Clone, Debug, Default)]
pub struct Heard {
    /// Orders that were followed from their first status to their last.
    pub orders: u64,
    /// What came of them.
    pub updates: u64,
    /// From the time of an event, as its appender noted it, until a subscriber had it.
    pub lags: Latencies,
}

/// Which orders there are, and which one nobody follows yet.
#[derive(Debug)]
struct Story {
    workload: Workload,
    caller: String,
    next: AtomicU64,
}

#[derive(Debug)]
struct Subscriber {
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    story: Arc<Story>,
    following: Option<u64>,
}

impl Audience {
    /// Connects `count` subscribers to the query API and subscribes each to an order of `workload`, none of which need be placed yet.
    pub async fn gather(info: &StackInfo, workload: &Workload, count: usize) -> anyhow::Result<Self> {
        let subject = tokens::SUBJECTS.iter().find(|(role, _)| *role == ROLE).context("nobody has the role")?.1;
        let token = info.tokens.get(ROLE).context("there is no token for the role")?;
        let caller = format!("{ROLE}:{subject}");
        let story = Arc::new(Story { workload: workload.clone(), caller, next: AtomicU64::new(0) });
        let subscribers = stream::iter(0..count).map(|_| Subscriber::connect(&info.query_api, token, Arc::clone(&story)));
        Ok(Self { subscribers: subscribers.buffer_unordered(CONNECTING_MAX).try_collect().await? })
    }

    /// Follows every order of the workload to its end.
    ///
    /// Fails if a subscriber misses a status, sees one out of order, hears an error, or nothing for two minutes.
    pub async fn listen(self) -> anyhow::Result<Heard> {
        let listening = self.subscribers.into_iter().map(|subscriber| tokio::spawn(subscriber.listen()));
        let (mut orders, mut updates, mut lags) = (0, 0, Vec::new());
        for heard in future::try_join_all(listening).await? {
            let Followed { orders: of_this_one, lags: these } = heard?;
            orders += of_this_one;
            updates += these.len() as u64;
            lags.extend(these);
        }
        Ok(Heard { orders, updates, lags: Latencies::new(lags) })
    }
}

#[derive(Default)]
struct Followed {
    orders: u64,
    lags: Vec<Duration>,
}

/// What the server says.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said {
    ConnectionAck,
    Ping,
    Pong,
    Next { id: String, payload: Payload },
    Complete { id: String },
    Error { payload: serde_json::Value },
}

#[derive(Debug, Deserialize)]
struct Payload {
    data: Option<Data>,
    #[serde(default)]
    errors: Vec<serde_json::Value>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    order_updated: Update,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Update {
    order_id: String,
    status: String,
    version: u64,
    position: String,
    #[serde(with = "time::serde::rfc3339")]
    updated_at: OffsetDateTime,
}

/// One order's way so far.
#[derive(Debug, Default)]
struct Way {
    statuses: Vec<String>,
    version: u64,
    position: u64,
}

impl Way {
    fn go_on(&mut self, update: &Update) -> anyhow::Result<()> {
        let position: u64 = update.position.parse().context("read a position")?;
        ensure!(position > self.position, "the update of position {position} came after that of {}: {update:?}", self.position);
        let steps = update.version.checked_sub(self.version);
        ensure!(steps <= Some(1) && steps.is_some(), "version {} came after version {}: {update:?}", update.version, self.version);
        (self.version, self.position) = (update.version, position);
        if self.statuses.last() != Some(&update.status) {
            self.statuses.push(update.status.clone());
        }
        let is_way =
            |way: &&[&str]| way.iter().zip(&self.statuses).filter(|(one, other)| one == other).count() == self.statuses.len();
        ensure!(WAYS.iter().any(is_way), "no order goes that way: {:?}", self.statuses);
        Ok(())
    }

    /// Whether the order has come to its end; one that is to be called off has when it is.
    fn is_over(&self, is_called_off: bool) -> bool {
        let status = self.statuses.last().map_or("", String::as_str);
        matches!(status, "REJECTED" | "CANCELLED") || (status == "CONFIRMED" && !is_called_off)
    }
}

impl Subscriber {
    async fn connect(query_api: &str, token: &str, story: Arc<Story>) -> anyhow::Result<Self> {
        let address = query_api.strip_prefix("http://").context("the query API speaks HTTP")?;
        let mut request = format!("ws://{address}/graphql/ws").into_client_request()?;
        request.headers_mut().insert("sec-websocket-protocol", "graphql-transport-ws".parse()?);
        let config = WebSocketConfig::default().read_buffer_size(READ_BUFFER_BYTES);
        let (socket, _) = connect_async_with_config(request, Some(config), false).await.context("connect a subscriber")?;
        let mut subscriber = Self { socket, story, following: None };
        let payload = json!({"Authorization": format!("Bearer {token}")});
        subscriber.say(&json!({"type": "connection_init", "payload": payload})).await?;
        match subscriber.hear().await? {
            Said::ConnectionAck => {}
            other => bail!("a subscriber is not let in: {other:?}"),
        }
        subscriber.follow_next().await?;
        Ok(subscriber)
    }

    /// Subscribes to the next order, if there is one.
    async fn follow_next(&mut self) -> anyhow::Result<()> {
        let index = self.story.next.fetch_add(1, Ordering::Relaxed);
        self.following = (index < self.story.workload.orders()).then_some(index);
        if self.following.is_some() {
            let variables = json!({"id": self.story.order_id(index)});
            let payload = json!({"query": FOLLOW, "variables": variables});
            self.say(&json!({"type": "subscribe", "id": index.to_string(), "payload": payload})).await?;
        }
        Ok(())
    }

    async fn listen(mut self) -> anyhow::Result<Followed> {
        let mut followed = Followed::default();
        while let Some(index) = self.following {
            self.follow(index, &mut followed.lags).await.with_context(|| format!("follow order {}", self.story.order_id(index)))?;
            followed.orders += 1;
            self.say(&json!({"type": "complete", "id": index.to_string()})).await?;
            self.follow_next().await?;
        }
        self.socket.close(None).await?;
        Ok(followed)
    }

    async fn follow(&mut self, index: u64, lags: &mut Vec<Duration>) -> anyhow::Result<()> {
        let (this, order_id) = (index.to_string(), self.story.order_id(index));
        let is_called_off = self.story.workload.order(index).cancelled_after.is_some();
        let mut way = Way::default();
        while !way.is_over(is_called_off) {
            match self.hear().await? {
                Said::Next { id, payload: Payload { data: Some(data), errors } } if id == this && errors.is_empty() => {
                    let update = data.order_updated;
                    ensure!(update.order_id == order_id, "an update of order {} came", update.order_id);
                    lags.push((now() - update.updated_at).try_into().unwrap_or_default());
                    way.go_on(&update)?;
                }
                // Of the order before, sent before the server had read that it is not followed any more.
                Said::Next { id, .. } | Said::Complete { id } if id != this => {}
                Said::Ping => self.say(&json!({"type": "pong"})).await?,
                Said::Pong => {}
                Said::Error { payload } => bail!("the query API refuses: {payload}"),
                other => bail!("an update was awaited, and this came: {other:?}"),
            }
        }
        Ok(())
    }

    async fn say(&mut self, message: &serde_json::Value) -> anyhow::Result<()> {
        self.socket.send(Message::text(message.to_string())).await.context("talk to the query API")
    }

    async fn hear(&mut self) -> anyhow::Result<Said> {
        loop {
            let message = timeout(SILENCE_MAX, pin!(self.socket.next())).await.context("nothing came for two minutes")?;
            match message.context("the query API hung up")?.context("listen to the query API")? {
                Message::Text(text) => return serde_json::from_str(&text).with_context(|| format!("understand {text}")),
                Message::Close(frame) => bail!("the query API closed the connection: {frame:?}"),
                Message::Ping(_) | Message::Pong(_) | Message::Binary(_) | Message::Frame(_) => {}
            }
        }
    }
}

impl Story {
    /// The id that the command API gives the order of that index.
    fn order_id(&self, index: u64) -> String {
        OrderId::derive(&self.caller, &self.workload.order(index).key).to_string()
    }
}

#[expect(clippy::disallowed_methods, reason = "what is measured is how old an update is")]
fn now() -> OffsetDateTime {
    OffsetDateTime::now_utc()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn update(status: &str, version: u64, position: u64) -> Update {
        let (order_id, status, position) = (String::new(), status.to_owned(), position.to_string());
        Update { order_id, status, version, position, updated_at: OffsetDateTime::UNIX_EPOCH }
    }

    fn go(updates: &[(&str, u64, u64)]) -> anyhow::Result<Way> {
        let mut way = Way::default();
        updates.iter().try_for_each(|(status, version, position)| way.go_on(&update(status, *version, *position)))?;
        Ok(way)
    }

    #[test]
    fn an_order_goes_one_of_its_ways_step_by_step() {
        let way = go(&[("PLACED", 1, 3), ("RESERVED", 2, 5), ("RESERVED", 2, 6), ("CONFIRMED", 3, 9)]).unwrap();
        assert!(way.is_over(false) && !way.is_over(true));
        assert!(go(&[("PLACED", 1, 3), ("REJECTED", 2, 5)]).unwrap().is_over(true));
    }

    #[test]
    fn what_is_missed_or_out_of_order_is_noticed() {
        for bad in [
            &[("RESERVED", 2, 5)][..],
            &[("PLACED", 1, 3), ("CONFIRMED", 3, 9)],
            &[("PLACED", 1, 3), ("CONFIRMED", 2, 9)],
            &[("PLACED", 1, 3), ("RESERVED", 2, 3)],
            &[("PLACED", 1, 3), ("RESERVED", 2, 5), ("PLACED", 2, 6)],
            &[("PLACED", 1, 3), ("RESERVED", 2, 5), ("CONFIRMED", 1, 6)],
        ] {
            assert!(go(bad).is_err(), "{bad:?}");
        }
    }
}
