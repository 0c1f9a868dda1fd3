//! Charges reserved orders, and gives the money back for those that were called off.
//!
//! What to do next is [`settlement::next_step`]'s decision, from the order and its payment alone. This reactor carries
//! one step out, appends what came of it, and looks again, until nothing is owed to anyone.

pub mod gateway;
mod pace;
pub mod stripe;

use std::{
    pin::pin,
    sync::Arc,
    time::{Duration, Instant},
};

use domain::{
    Money, OrderId,
    envelope::{Metadata, StoredEvent},
    order::{self, Cause, Order, OrderCommand},
    payment::{self, Payment, PaymentCommand, RecordGivingUp},
    settlement::{self, Step},
};
use event_store::{
    AppendError, EventContext, ExecuteError, JetStreamEventStore, LoadError, Loaded, Timer, Transaction, WorkSource,
};

use telemetry::drain::Drain;
use tokio::sync::Semaphore;

use self::{
    gateway::{ChargeOutcome, ChargeRequest, GatewayError},
    pace::Pace,
    stripe::StripeGateway,
};
use crate::{
    breaker::{Breaker, LeftAlone, Limits},
    causation::{Identity, caused_by},
    clock,
    metrics::{ChargeEnd, GatewayCall, ReactorMetrics},
    reactor::{Failure, News, Reactor, Surroundings},
};

const CANCELLED: &str = "contrail.order.cancelled.v1";
/// What the timers of called off orders are for.
const FIND_CHARGE: &str = "find-charge";

const IDENTITY: Identity = Identity { source: "/contrail/payments", actor: "system:payments" };
/// For how long the gateway surely knows an idempotency key: Stripe forgets them after 24 hours. Of an order that has waited for longer, it
/// is looked up first whether it was charged.
const KEYS_KEPT: Duration = Duration::from_secs(20 * 3_600);
/// Calls to the gateway at the same time.
const GATEWAY_CALLS_MAX: usize = 64;
/// Steps for one event before something must be wrong; two are usual, and a race with a cancellation adds a few.
const STEPS_MAX: usize = 20;

/// The payments reactor.
#[derive(Debug)]
pub struct Payments {
    store: JetStreamEventStore,
    gateway: StripeGateway,
    gateway_calls: Semaphore,
    breaker: Breaker,
    /// One for each kind of call, as the gateway has limits for each.
    paces: [Pace; GatewayCall::ALL.len()],
    metrics: ReactorMetrics,
    drain: Drain,
    /// How long after an order was called off its charge is looked for again.
    checks: Vec<Duration>,
}

/// When the gateway is asked again whether it has charged an order that was called off: its search may not know yet what it has just done
/// ("within a minute", says Stripe; in an incident later).
pub const CHARGE_CHECKS: [Duration; 2] = [Duration::from_secs(120), Duration::from_secs(3_600)];

impl Payments {
    /// The gateway's name in metrics, in logs and in `/ready`.
    pub const GATEWAY: &'static str = "payment-gateway";

    /// Charges through `gateway` what the log says is reserved, and begins no more of that once the drain has started.
    pub fn new(gateway: StripeGateway, surroundings: &Surroundings) -> Self {
        let Surroundings { store, metrics, health, drain, .. } = surroundings.clone();
        let breaker = Breaker::new(Self::GATEWAY, Limits::default(), &metrics, &health);
        let gateway_calls = Semaphore::new(GATEWAY_CALLS_MAX);
        let (paces, checks) = (GatewayCall::ALL.map(|_| Pace::default()), CHARGE_CHECKS.to_vec());
        Self { store, gateway, gateway_calls, breaker, paces, metrics, drain, checks }
    }

    /// The same, but it looks for the charges of orders that were called off at these times after that.
    #[must_use]
    pub fn with_checks(self, checks: Vec<Duration>) -> Self {
        Self { checks, ..self }
    }
}

impl Reactor for Payments {
    const NAME: &'static str = "payments";
    const SOURCE: WorkSource = WorkSource::Log(&["order"]);
    // Most of an event's time is the append, which costs next to nothing while it waits for its group.
    const CONCURRENCY: usize = 1_024;

    fn wants(&self, event_type: &str) -> bool {
        matches!(event_type, "contrail.order.stock_reserved.v1" | CANCELLED)
    }

    fn breaker(&self) -> Option<&Breaker> {
        Some(&self.breaker)
    }

    /// So that whoever looks at the order sees that its payment does not go on by itself.
    async fn gave_up(&self, event: &StoredEvent, position: u64, error_chain: &[String]) -> Result<(), Failure> {
        let (cause, now) = (&event.metadata, clock::now());
        let Ok(order_id) = cause.aggregate_id.parse::<OrderId>() else { return Ok(()) };
        let command = RecordGivingUp { position, reason: error_chain.join(": "), given_up_at: now };
        let decide = |loaded: &Loaded<Payment>| payment::decide(&loaded.aggregate, PaymentCommand::RecordGivingUp(command.clone()));
        let (context, _sending) = caused_by(cause, &IDENTITY, now);
        match self.store.execute(&order_id.to_string(), &context, decide).await {
            // A payment that cannot be read is what was given up on; the dead letter says so.
            Ok(_) | Err(ExecuteError::Rejected(_) | ExecuteError::Load(LoadError::Decode { .. } | LoadError::Version { .. })) => {
                Ok(())
            }
            Err(error) => Err(Failure::transient(error)),
        }
    }

    async fn handle(&self, event: &StoredEvent, news: News) -> Result<(), Failure> {
        self.settle(event, news, Occasion::Event).await
    }
}

/// Why an order is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Occasion {
    /// Something has happened to it.
    Event,
    /// It is time to look for its charge again.
    ChargeCheck,
}

impl Payments {
    /// Carries out step after step until nothing is owed to anyone.
    async fn settle(&self, event: &StoredEvent, news: News, occasion: Occasion) -> Result<(), Failure> {
        let cause = &event.metadata;
        let order_id: OrderId = cause.aggregate_id.parse().map_err(Failure::permanent)?;
        // What the gateway said during this call and could not be recorded yet, because the order moved meanwhile.
        let mut charged = None;
        let mut known = if news == News::Fresh { self.known_standing(order_id, cause) } else { None };
        for _ in 0..STEPS_MAX {
            let standing = match known.take() {
                Some(standing) => standing,
                // Boxed, as it is large, and of a fresh event the standing is mostly known.
                None => Box::pin(self.standing(order_id)).await?,
            };
            match self.take_step(&standing, event, occasion, &mut charged).await? {
                Progress::Settled => return Ok(()),
                Progress::LookAgain => {}
            }
        }
        Err(Failure::transient(Unsettled { order_id }))
    }
}

/// The part of the payments reactor that is handed the orders of which it is time to look for a charge again.
#[derive(Debug)]
pub struct ChargeChecks(pub Arc<Payments>);

impl Reactor for ChargeChecks {
    const NAME: &'static str = Payments::NAME;
    const SOURCE: WorkSource = WorkSource::Timers(FIND_CHARGE);
    const TAKES_REDRIVES: bool = false;
    const CONCURRENCY: usize = GATEWAY_CALLS_MAX;

    fn wants(&self, event_type: &str) -> bool {
        self.0.wants(event_type)
    }

    fn breaker(&self) -> Option<&Breaker> {
        self.0.breaker()
    }

    fn gave_up(
        &self,
        event: &StoredEvent,
        position: u64,
        error_chain: &[String],
    ) -> impl Future<Output = Result<(), Failure>> + Send {
        self.0.gave_up(event, position, error_chain)
    }

    fn handle(&self, event: &StoredEvent, news: News) -> impl Future<Output = Result<(), Failure>> + Send {
        self.0.settle(event, news, Occasion::ChargeCheck)
    }
}

/// An order and its payment as the log has them.
struct Standing {
    order_id: OrderId,
    order: Loaded<Order>,
    payment: Loaded<Payment>,
}

enum Progress {
    Settled,
    LookAgain,
}

/// Whoever comes next has to do it.
#[derive(Debug, thiserror::Error)]
#[error("the reactor is draining and calls the gateway no more")]
struct Draining;

#[derive(Debug, thiserror::Error)]
#[error("order {order_id} is not settled after {STEPS_MAX} steps")]
struct Unsettled {
    order_id: OrderId,
}

/// Somebody has given the money back by hand, of an order that nobody has called off. Whether it is to be delivered all the same, people
/// have to say.
#[derive(Debug, thiserror::Error)]
#[error(
    "charge {payment_intent_id} of order {order_id} was given back at the gateway, and the order was not called off: cancel it"
)]
struct GivenBack {
    order_id: OrderId,
    payment_intent_id: String,
}

/// A charge that was made for an order.
struct Found {
    payment_intent_id: String,
    amount: Money,
    is_refunded: bool,
}

impl Found {
    /// One that was made a moment ago.
    fn kept((payment_intent_id, amount): (String, Money)) -> Self {
        Self { payment_intent_id, amount, is_refunded: false }
    }
}

impl Payments {
    /// Where order and payment stand by the leader's account: "nothing to do" must not be decided on what a follower that
    /// is behind has.
    async fn standing(&self, order_id: OrderId) -> Result<Standing, Failure> {
        let id = order_id.to_string();
        let (mut order, mut payment) = (Loaded::default(), Loaded::default());
        let refreshed = tokio::try_join!(self.store.refresh(&id, &mut order), self.store.refresh(&id, &mut payment));
        refreshed.map_err(Failure::of_load)?;
        Ok(Standing { order_id, order, payment })
    }

    /// Where they stand as far as this process knows, if that is something to charge. The allocator, in the same process, has
    /// just reserved the stock, and what is charged for an order that was called off meanwhile is given back: the append shows it.
    fn known_standing(&self, order_id: OrderId, cause: &Metadata) -> Option<Standing> {
        let id = order_id.to_string();
        let order = self.store.recall::<Order>(&id).filter(|order| order.version >= cause.version)?;
        let payment = self.store.recall::<Payment>(&id).unwrap_or_default();
        let step = settlement::next_step(&order.aggregate, &payment.aggregate, clock::now());
        matches!(step, Step::Charge { .. }).then_some(Standing { order_id, order, payment })
    }

    async fn take_step(
        &self,
        standing: &Standing,
        event: &StoredEvent,
        occasion: Occasion,
        charged: &mut Option<(String, Money)>,
    ) -> Result<Progress, Failure> {
        let step = settlement::next_step(&standing.order.aggregate, &standing.payment.aggregate, clock::now());
        let outcome = match step {
            Step::Nothing => return Ok(Progress::Settled),
            Step::Charge { amount, payment_method } => {
                let is_old = clock::now() - event.metadata.time > KEYS_KEPT;
                let found =
                    if is_old { self.find_charge(standing.order_id, charged).await? } else { charged.clone().map(Found::kept) };
                if let Some(Found { payment_intent_id, amount, is_refunded }) = found {
                    if is_refunded {
                        return Err(Failure::permanent(GivenBack { order_id: standing.order_id, payment_intent_id }));
                    }
                    Outcome::captured(payment_intent_id, amount, true)
                } else {
                    self.charge(standing.order_id, amount, payment_method, charged).await?
                }
            }
            Step::CancelUnpaid => Outcome { order: Some(settlement::cancel_unpaid(clock::now())), payment: None },
            Step::Confirm { payment_intent_id } => Outcome { order: Some(confirm(payment_intent_id)), payment: None },
            Step::CancelDeclined { message } => Outcome { order: Some(cancel_declined(message)), payment: None },
            Step::FindCharge => {
                let found = self.find_charge(standing.order_id, charged).await?;
                // One that was given back already needs a refund on record, which finds itself done.
                let Some(Found { payment_intent_id, amount, is_refunded: _ }) = found else {
                    self.look_again_later(standing, event, occasion).await?;
                    return Ok(Progress::Settled);
                };
                Outcome::captured(payment_intent_id, amount, false)
            }
            Step::Refund { payment_intent_id, amount } => {
                let refund = Box::pin(self.gateway.refund(standing.order_id.0, &payment_intent_id, amount.minor_units));
                let refund_id = self.call(GatewayCall::Refund, refund).await?.map_err(gateway_failure)?.refund_id;
                let command = payment::RecordRefund { refund_id, refunded_at: clock::now() };
                Outcome { order: None, payment: Some(PaymentCommand::RecordRefund(command)) }
            }
        };
        let (context, _sending) = caused_by(&event.metadata, &IDENTITY, clock::now());
        self.record(standing, outcome, &context).await
    }

    /// Sees to it that `event`, with which an order was called off, is handled again at the next time to look for its charge.
    async fn look_again_later(&self, standing: &Standing, event: &StoredEvent, occasion: Occasion) -> Result<(), Failure> {
        let cancellation = standing.order.aggregate.cancellation.as_ref();
        // Of an event that came before that, nothing follows any more; the one that called the order off is handled by itself.
        let Some(cancellation) = cancellation.filter(|_| event.metadata.event_type == CANCELLED) else { return Ok(()) };
        let now = clock::now();
        let next = self.checks.iter().map(|check| cancellation.cancelled_at + *check).find(|check| *check > now);
        // Who comes so late that all are past, as after a long outage of the gateway, looks once more all the same.
        let once_more = || self.checks.first().filter(|_| occasion == Occasion::Event).map(|check| now + *check);
        let Some(due_at) = next.or_else(once_more) else { return Ok(()) };
        let timer = Timer {
            purpose: FIND_CHARGE,
            aggregate_id: standing.order_id.to_string(),
            due_at,
            // Nothing happens to an order after it was called off.
            position: standing.order.position,
            event: event.to_json().into(),
        };
        self.store.set_timers(&[timer]).await.map_err(Failure::transient)
    }

    /// Makes one call to the gateway, once one more may be made.
    async fn call<T>(
        &self,
        kind: GatewayCall,
        call: impl Future<Output = Result<T, GatewayError>>,
    ) -> Result<Result<T, GatewayError>, Failure> {
        let pace = &self.paces[kind as usize];
        let turn = async {
            // Whoever waits for a slow kind of call is in the way of no other kind.
            pace.turn().await;
            self.gateway_calls.acquire().await.expect("the semaphore is never closed")
        };
        let _one_of_few = tokio::select! {
            biased;
            () = self.drain.started() => return Err(Failure::not_tried(Draining)),
            () = self.breaker.opened() => return Err(Failure::not_tried(LeftAlone { system: Self::GATEWAY })),
            turn = turn => turn,
        };
        let admitted = self.breaker.admit().await.map_err(Failure::not_tried)?;
        if self.drain.is_started() {
            return Err(Failure::not_tried(Draining));
        }
        let asked = Instant::now();
        let answer = call.await;
        self.metrics.gateway_answered(kind, asked.elapsed());
        match &answer {
            // It is there, and has not tried: this event goes on when it is its turn again.
            Err(error) if error.is_too_fast() => {
                if let Some(interval) = pace.refused(error.retry_after()) {
                    let (call, interval_ms) = (kind.label(), u64::try_from(interval.as_millis()).unwrap_or(u64::MAX));
                    tracing::info!(
                        call,
                        interval_ms,
                        "the gateway is asked too often: from now on every {interval_ms} ms ({call})"
                    );
                }
                return answer.map(Ok).map_err(Failure::not_tried);
            }
            Err(error) if error.is_of_the_gateway() => admitted.failed(error.retry_after()),
            // Nothing was said to the gateway, so nothing is known of it.
            Err(GatewayError::NotAsked { .. }) => {}
            _ => {
                pace.worked();
                admitted.worked();
            }
        }
        Ok(answer)
    }

    async fn charge(
        &self,
        order_id: OrderId,
        amount: Money,
        payment_method: String,
        charged: &mut Option<(String, Money)>,
    ) -> Result<Outcome, Failure> {
        let request = ChargeRequest {
            order_id: order_id.0,
            amount_minor: amount.minor_units,
            currency: amount.currency.code().to_owned(),
            payment_method,
        };
        // In its place from the start: by value it would be kept three times.
        let charge = pin!(self.gateway.charge(&request));
        let answer = self.call(GatewayCall::Charge, charge).await?;
        self.metrics.charged(match &answer {
            Ok(ChargeOutcome::Captured { .. }) => ChargeEnd::Captured,
            Ok(ChargeOutcome::Declined { .. }) => ChargeEnd::Declined,
            Err(error) if error.is_about_the_request() => ChargeEnd::Declined,
            Err(_) => ChargeEnd::Failed,
        });
        match answer {
            Ok(ChargeOutcome::Captured { payment_intent_id }) => {
                *charged = Some((payment_intent_id.clone(), amount));
                Ok(Outcome::captured(payment_intent_id, amount, true))
            }
            Ok(ChargeOutcome::Declined { code, message }) => Ok(Outcome::declined(code, message)),
            // The gateway understood and will never accept this charge: the customer's order ends, the others go on.
            Err(error) if error.is_about_the_request() => match error {
                GatewayError::Permanent { code, message, .. } | GatewayError::NotAsked { code, message, .. } => {
                    Ok(Outcome::declined(code, message))
                }
                GatewayError::Transient { .. } => Err(gateway_failure(error)),
            },
            Err(error) => Err(gateway_failure(error)),
        }
    }

    async fn find_charge(&self, order_id: OrderId, charged: &mut Option<(String, Money)>) -> Result<Option<Found>, Failure> {
        if let Some(charged) = charged.clone() {
            return Ok(Some(Found::kept(charged)));
        }
        let search = Box::pin(self.gateway.find_charge(order_id.0));
        let found = self.call(GatewayCall::FindCharge, search).await?.map_err(gateway_failure)?;
        let Some(found) = found else { return Ok(None) };
        let currency = found.currency.to_uppercase().parse().map_err(Failure::permanent)?;
        let amount = Money::new(found.amount_minor, currency);
        Ok(Some(Found { payment_intent_id: found.payment_intent_id, amount, is_refunded: found.refunded }))
    }

    /// Appends what came of a step, to payment and order in one transaction.
    async fn record(&self, standing: &Standing, outcome: Outcome, context: &EventContext) -> Result<Progress, Failure> {
        let id = standing.order_id.to_string();
        let moves_order = outcome.order.is_some();
        let (mut payment, mut order) = (standing.payment.clone(), standing.order.clone());
        let (mut payment_events, mut order_events) = (Vec::new(), Vec::new());
        if let Some(command) = outcome.payment {
            payment_events = payment::decide(&payment.aggregate, command).map_err(Failure::permanent)?;
        }
        if let Some(command) = outcome.order {
            order_events = order::decide(&order.aggregate, command).map_err(Failure::permanent)?;
        }
        let mut transaction = Transaction::new();
        transaction.push::<Payment>(&id, payment.expected(), &payment_events, context);
        transaction.push::<Order>(&id, order.expected(), &order_events, context);
        if transaction.is_empty() {
            return Ok(Progress::Settled);
        }
        // Where the order itself moved on, nothing is owed any more; what was captured for one that is called off is.
        match self.store.append(transaction).await {
            Ok(appended) => {
                if !payment_events.is_empty() {
                    payment.advance(&payment_events, appended.last_position - order_events.len() as u64);
                    self.store.remember(&id, &payment);
                }
                if !order_events.is_empty() {
                    order.advance(&order_events, appended.last_position);
                    self.store.remember(&id, &order);
                }
                Ok(if moves_order { Progress::Settled } else { Progress::LookAgain })
            }
            Err(AppendError::Conflict { .. }) => Ok(Progress::LookAgain),
            Err(error @ (AppendError::Unavailable | AppendError::Overloaded | AppendError::Refused { .. })) => {
                Err(Failure::transient(error))
            }
            Err(error @ AppendError::Invalid(_)) => Err(Failure::permanent(error)),
        }
    }
}

/// What a step leads to, for the order and for its payment.
struct Outcome {
    order: Option<OrderCommand>,
    payment: Option<PaymentCommand>,
}

impl Outcome {
    fn captured(payment_intent_id: String, amount: Money, confirms_order: bool) -> Self {
        let command = payment::RecordCapture { payment_intent_id: payment_intent_id.clone(), amount, captured_at: clock::now() };
        Self { order: confirms_order.then(|| confirm(payment_intent_id)), payment: Some(PaymentCommand::RecordCapture(command)) }
    }

    fn declined(code: String, message: String) -> Self {
        let order = cancel_declined(message.clone());
        let command = payment::RecordDecline { code, message, declined_at: clock::now() };
        Self { order: Some(order), payment: Some(PaymentCommand::RecordDecline(command)) }
    }
}

fn confirm(payment_intent_id: String) -> OrderCommand {
    OrderCommand::Confirm(order::Confirm { payment_intent_id, confirmed_at: clock::now() })
}

fn cancel_declined(message: String) -> OrderCommand {
    let mut reason = if message.is_empty() { "the payment was declined".to_owned() } else { message };
    if let Some((end, _)) = reason.char_indices().nth(order::TEXT_CHARS_MAX) {
        reason.truncate(end);
    }
    OrderCommand::Cancel(order::Cancel { cause: Cause::PaymentDeclined, reason, cancelled_at: clock::now(), request: None })
}

fn gateway_failure(error: GatewayError) -> Failure {
    match &error {
        GatewayError::Transient { .. } => Failure::Transient { retry_after: error.retry_after(), source: Box::new(error) },
        GatewayError::NotAsked { .. } => Failure::permanent(error),
        GatewayError::Permanent { .. } if error.is_about_the_request() => Failure::permanent(error),
        GatewayError::Permanent { .. } => Failure::transient(error),
    }
}
