//! `/graphql/ws`: subscriptions and queries over WebSocket, by the protocol graphql-transport-ws
//! (<https://github.com/enisdenjo/graphql-ws/blob/master/PROTOCOL.md>), whose close codes these are.
//!
//! A connection takes a bounded number of operations, and its client has to listen: what it does not take is not even made.

use std::collections::HashMap;
use std::time::Duration;

use async_graphql::parser::types::OperationType;
use async_graphql::{Response as GraphqlResponse, ServerError};
use auth::{Caller, Refused, door};
use axum::extract::State;
use axum::extract::ws::rejection::WebSocketUpgradeRejection;
use axum::extract::ws::{CloseFrame, Message, WebSocket, WebSocketUpgrade};
use axum::http::header::{AUTHORIZATION, HOST, ORIGIN, UPGRADE};
use axum::http::{HeaderMap, HeaderValue, StatusCode};
use axum::response::Response;
use futures::future::{AbortHandle, Either, ready};
use futures::stream::{self, Abortable, BoxStream, SelectAll, StreamExt as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, MissedTickBehavior, interval_at, sleep_until, timeout};

use super::accept::Media;
use super::body::Posted;
use super::shares::Share;
use super::{Operation, Refusal, Service, expiry};
use crate::error::{code, server_error};
use crate::limits::{OPERATIONS_PER_SOCKET_MAX, REQUEST_BYTES_MAX, SOCKET_READ_BUFFER_BYTES, SOCKETS_PER_CUSTOMER_MAX};

const PROTOCOL: &str = "graphql-transport-ws";
/// How long a new client may take to say `connection_init`.
const INIT_WAIT: Duration = Duration::from_secs(5);
/// How often a client is asked whether it is still there.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// A client that has said nothing for this long, not even to a ping, is gone.
const SILENCE_MAX: Duration = Duration::from_secs(45);
/// How long a client may take to accept a message.
const SEND_DEADLINE: Duration = Duration::from_secs(15);

/// What clients say.
#[derive(Debug, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Said {
    ConnectionInit {
        #[serde(default)]
        payload: Option<Map<String, Value>>,
    },
    Ping {
        #[serde(default)]
        payload: Option<Map<String, Value>>,
    },
    Pong {
        #[serde(default, rename = "payload")]
        _payload: Option<Map<String, Value>>,
    },
    Subscribe {
        id: String,
        payload: Posted,
    },
    Complete {
        id: String,
    },
}

/// What we say.
#[derive(Debug, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum Say {
    ConnectionAck,
    Pong {
        #[serde(skip_serializing_if = "Option::is_none")]
        payload: Option<Map<String, Value>>,
    },
    Next {
        id: String,
        payload: GraphqlResponse,
    },
    Error {
        id: String,
        payload: Vec<ServerError>,
    },
    Complete {
        id: String,
    },
}

/// Why a connection ends.
#[derive(Debug)]
enum End {
    /// The client is told.
    Close(u16, String),
    /// There is nobody to be told.
    Gone,
}

/// Takes the connection over, if it is one for this protocol.
pub(super) async fn upgrade(
    State(service): State<Service>,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Response {
    let refuse = |status, code, message: &str| Refusal::new(status, code, message).into_response(Media::Json);
    let Ok(upgrade) = upgrade else {
        let message = "this is for WebSocket connections with the subprotocol graphql-transport-ws; queries go to /graphql";
        let mut response = refuse(StatusCode::UPGRADE_REQUIRED, code::BAD_REQUEST, message);
        response.headers_mut().insert(UPGRADE, HeaderValue::from_static("websocket"));
        return response;
    };
    if is_of_another_site(&headers) {
        return refuse(StatusCode::FORBIDDEN, code::BAD_REQUEST, "pages of other sites may not connect");
    }
    // Browsers cannot set this header; they say who they are in `connection_init`.
    let caller = if headers.contains_key(AUTHORIZATION) {
        match service.door.ask(&headers).await {
            Ok(caller) => Some(caller),
            Err(refused) => return Refusal::from(refused).into_response(Media::Json),
        }
    } else {
        None
    };
    let Ok(place) = service.sockets.clone().try_acquire_owned() else {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, code::UNAVAILABLE, "too many connections are open");
    };
    let upgrade = upgrade.protocols([PROTOCOL]).read_buffer_size(SOCKET_READ_BUFFER_BYTES);
    let upgrade = upgrade.max_message_size(REQUEST_BYTES_MAX).max_frame_size(REQUEST_BYTES_MAX);
    upgrade.on_upgrade(move |socket| serve(service, caller, socket, place))
}

/// Who somebody says they are in `connection_init`: `{"Authorization": "Bearer …"}`, the name in any case.
fn token_in(payload: Option<&Map<String, Value>>) -> Result<&str, Refused> {
    let mut fields = payload.into_iter().flatten();
    let (_, credentials) = fields.find(|(name, _)| name.eq_ignore_ascii_case("authorization")).ok_or(Refused::NoToken)?;
    let token = credentials.as_str().and_then(door::token_of);
    token.ok_or_else(|| Refused::BadToken("Authorization must be a text of the form Bearer …".to_owned()))
}

/// Browsers let every page connect to anywhere, and say which page it is.
fn is_of_another_site(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let Some(origin) = headers.get(ORIGIN) else { return false };
    let site = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, site)| site);
    site.is_none() || site != text(HOST)
}

async fn serve(service: Service, caller: Option<Caller>, mut socket: WebSocket, place: OwnedSemaphorePermit) {
    let open = service.metrics.socket();
    let end = if socket.protocol().is_some_and(|protocol| protocol == PROTOCOL) {
        Connection {
            service,
            socket: &mut socket,
            caller,
            initialised: None,
            share: None,
            running: SelectAll::new(),
            handles: HashMap::new(),
        }
        .run()
        .await
    } else {
        End::Close(4406, format!("Subprotocol not acceptable: ask for {PROTOCOL}"))
    };
    if let End::Close(code, mut reason) = end {
        // A control frame has no room for more.
        reason.truncate(reason.floor_char_boundary(120));
        let frame = CloseFrame { code, reason: reason.into() };
        // Whoever does not take it does not need it.
        let _ = timeout(SEND_DEADLINE, socket.send(Message::Close(Some(frame)))).await;
    }
    drop((open, place));
}

/// What comes of an operation: a message about it, and at last that it is complete.
type Outcomes = Abortable<BoxStream<'static, Say>>;

struct Connection<'a> {
    service: Service,
    socket: &'a mut WebSocket,
    /// Who asked for the connection, if they said so then.
    caller: Option<Caller>,
    /// Who is on it, once `connection_init` was said.
    initialised: Option<Caller>,
    /// That it is one of theirs.
    share: Option<Share>,
    running: SelectAll<Outcomes>,
    handles: HashMap<String, AbortHandle>,
}

impl Connection<'_> {
    async fn run(mut self) -> End {
        let started = Instant::now();
        let mut last_heard = started;
        let mut pings = interval_at(started + PING_INTERVAL, PING_INTERVAL);
        pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let drain = self.service.drain.clone();
        loop {
            let outcome = tokio::select! {
                () = drain.started() => Err(End::Close(1001, "The server is about to end: connect again".to_owned())),
                () = sleep_until(started + INIT_WAIT), if self.initialised.is_none() => {
                    Err(End::Close(4408, "Connection initialisation timeout".to_owned()))
                }
                () = expiry(self.initialised.as_ref().and_then(Caller::expires_in)) => {
                    Err(End::Close(4401, "Unauthorized: the token has expired".to_owned()))
                }
                _ = pings.tick() => match last_heard.elapsed() {
                    silence if silence > SILENCE_MAX => Err(End::Gone),
                    _ => self.send(Message::Ping(Vec::new().into())).await,
                },
                Some(say) = self.running.next(), if !self.running.is_empty() => {
                    if let Say::Complete { id } | Say::Error { id, .. } = &say {
                        self.handles.remove(id);
                    }
                    self.say(&say).await
                }
                message = self.socket.recv() => {
                    last_heard = Instant::now();
                    match message {
                        Some(Ok(Message::Text(text))) => self.hear(&text).await,
                        Some(Ok(Message::Binary(_))) => Err(End::Close(4400, "Messages are JSON texts".to_owned())),
                        Some(Ok(Message::Ping(_) | Message::Pong(_))) => Ok(()),
                        Some(Ok(Message::Close(_)) | Err(_)) | None => Err(End::Gone),
                    }
                }
            };
            if let Err(end) = outcome {
                return end;
            }
        }
    }

    async fn hear(&mut self, text: &str) -> Result<(), End> {
        let close = |code, reason: &str| Err(End::Close(code, reason.to_owned()));
        let said = match serde_json::from_str(text) {
            Ok(said) => said,
            Err(error) => return close(4400, &format!("Invalid message: {error}")),
        };
        match said {
            Said::ConnectionInit { .. } if self.initialised.is_some() => close(4429, "Too many initialisation requests"),
            Said::ConnectionInit { payload } => {
                let asked = match self.caller.take() {
                    Some(caller) => Ok(caller),
                    None => self.service.door.ask_for(token_in(payload.as_ref())).await,
                };
                match asked {
                    Ok(caller) => {
                        let Some(share) = self.service.shares_of_sockets.take(&caller) else {
                            return close(4429, &format!("Too many connections: you have {SOCKETS_PER_CUSTOMER_MAX} open"));
                        };
                        (self.initialised, self.share) = (Some(caller), Some(share));
                        self.say(&Say::ConnectionAck).await
                    }
                    Err(refused) => close(4403, &format!("Forbidden: {refused}")),
                }
            }
            Said::Ping { payload } => self.say(&Say::Pong { payload }).await,
            Said::Pong { .. } => Ok(()),
            Said::Subscribe { .. } if self.initialised.is_none() => close(4401, "Unauthorized"),
            Said::Subscribe { id, .. } if self.handles.contains_key(&id) => {
                close(4409, &format!("Subscriber for {id} already exists"))
            }
            Said::Subscribe { id, .. } if self.handles.len() >= OPERATIONS_PER_SOCKET_MAX => {
                let message = format!("a connection takes {OPERATIONS_PER_SOCKET_MAX} operations at a time");
                self.say(&Say::Error { id, payload: vec![server_error(code::LIMIT_EXCEEDED, message)] }).await
            }
            Said::Subscribe { id, payload } => {
                let Some(caller) = self.initialised.clone() else { return close(4401, "Unauthorized") };
                let counted = self.service.door.count(&caller).map_err(Refusal::from);
                let parameters = counted.and_then(|()| payload.check());
                match parameters
                    .and_then(|parameters| Operation::parse(parameters, &self.service.policy, &self.service.field_types))
                {
                    Ok(operation) => {
                        self.start(id, operation, caller);
                        Ok(())
                    }
                    Err(refusal) => self.say(&Say::Error { id, payload: refusal.errors }).await,
                }
            }
            Said::Complete { id } => {
                if let Some(handle) = self.handles.remove(&id) {
                    handle.abort();
                }
                Ok(())
            }
        }
    }

    fn start(&mut self, id: String, operation: Operation, caller: Caller) {
        let service = self.service.clone();
        let responses = if operation.kind == Some(OperationType::Subscription) {
            Either::Left(service.subscribe(operation, caller))
        } else {
            Either::Right(stream::once(async move { service.execute_in_time(operation, caller).await }))
        };
        let (handle, registration) = AbortHandle::new_pair();
        let complete = Say::Complete { id: id.clone() };
        let outcomes = {
            let id = id.clone();
            let say = move |response| match response {
                Ok(payload) => Say::Next { id: id.clone(), payload },
                Err(Refusal { errors, .. }) => Say::Error { id: id.clone(), payload: errors },
            };
            // An error is the last that is said of an operation.
            let mut is_over = false;
            responses.map(say).chain(stream::once(ready(complete))).take_while(move |say| {
                let goes_on = !is_over;
                is_over |= matches!(say, Say::Error { .. });
                ready(goes_on)
            })
        };
        self.handles.insert(id, handle);
        self.running.push(Abortable::new(outcomes.boxed(), registration));
    }

    async fn say(&mut self, say: &Say) -> Result<(), End> {
        let text = serde_json::to_string(say).expect("a message has string keys only, so it always serializes");
        self.send(Message::Text(text.into())).await
    }

    async fn send(&mut self, message: Message) -> Result<(), End> {
        match timeout(SEND_DEADLINE, self.socket.send(message)).await {
            Ok(Ok(())) => Ok(()),
            // It is gone, or does not listen.
            Ok(Err(_)) | Err(_) => Err(End::Gone),
        }
    }
}
