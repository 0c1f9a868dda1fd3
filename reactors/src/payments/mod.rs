//! Charges reserved orders, and gives the money back for those that were called off.
//!
//! What to do next is [`settlement::next_step`]'s decision, from the order and its payment alone. This reactor carries
//! one step out, appends what came of it, and looks again, until nothing is owed to anyone.

pub mod gateway;
pub mod stripe;

use domain::{
    Money, OrderId,
    envelope::{Metadata, StoredEvent},
    order::{self, Cause, Order, OrderCommand},
    payment::{self, Payment, PaymentCommand},
    settlement::{self, Step},
};
use event_store::{AppendError, EventContext, JetStreamEventStore, LoadError, Loaded, Transaction};

use telemetry::drain::Drain;
use tokio::sync::{Semaphore, SemaphorePermit};

use self::{
    gateway::{ChargeOutcome, ChargeRequest, GatewayError},
    stripe::StripeGateway,
};
use crate::{
    causation::{Identity, caused_by},
    clock,
    reactor::{Failure, News, Reactor},
};

const IDENTITY: Identity = Identity { source: "/contrail/payments", actor: "system:payments" };
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
    drain: Drain,
}

impl Payments {
    /// Charges through `gateway` what `store` says is reserved, and begins no more of that once `drain` has started.
    pub fn new(store: JetStreamEventStore, gateway: StripeGateway, drain: Drain) -> Self {
        Self { store, gateway, gateway_calls: Semaphore::new(GATEWAY_CALLS_MAX), drain }
    }
}

impl Reactor for Payments {
    const NAME: &'static str = "payments";
    const AGGREGATE_TYPES: &'static [&'static str] = &["order"];
    // Most of an event's time is the append, which costs next to nothing while it waits for its group.
    const CONCURRENCY: usize = 1_024;

    fn wants(&self, event_type: &str) -> bool {
        matches!(event_type, "contrail.order.stock_reserved.v1" | "contrail.order.cancelled.v1")
    }

    async fn handle(&self, event: &StoredEvent, news: News) -> Result<(), Failure> {
        let cause = &event.metadata;
        let order_id: OrderId = cause.aggregate_id.parse().map_err(Failure::permanent)?;
        // What the gateway said during this call and could not be recorded yet, because the order moved meanwhile.
        let mut charged = None;
        let mut known = if news == News::Fresh { self.known_standing(order_id, cause) } else { None };
        for _ in 0..STEPS_MAX {
            let standing = match known.take() {
                Some(standing) => standing,
                None => self.standing(order_id).await?,
            };
            match self.take_step(&standing, cause, &mut charged).await? {
                Progress::Settled => return Ok(()),
                Progress::LookAgain => {}
            }
        }
        Err(Failure::transient(Unsettled { order_id }))
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

impl Payments {
    /// Where order and payment stand by the leader's account: "nothing to do" must not be decided on what a follower that
    /// is behind has.
    async fn standing(&self, order_id: OrderId) -> Result<Standing, Failure> {
        let id = order_id.to_string();
        let (mut order, mut payment) = (Loaded::default(), Loaded::default());
        let refreshed = tokio::try_join!(self.store.refresh(&id, &mut order), self.store.refresh(&id, &mut payment));
        refreshed.map_err(load_failure)?;
        Ok(Standing { order_id, order, payment })
    }

    /// Where they stand as far as this process knows, if that is something to charge. The allocator, in the same process, has
    /// just reserved the stock, and what is charged for an order that was called off meanwhile is given back: the append shows it.
    fn known_standing(&self, order_id: OrderId, cause: &Metadata) -> Option<Standing> {
        let id = order_id.to_string();
        let order = self.store.recall::<Order>(&id).filter(|order| order.version >= cause.version)?;
        let payment = self.store.recall::<Payment>(&id).unwrap_or_default();
        let step = settlement::next_step(&order.aggregate, &payment.aggregate);
        matches!(step, Step::Charge { .. }).then_some(Standing { order_id, order, payment })
    }

    async fn take_step(
        &self,
        standing: &Standing,
        cause: &Metadata,
        charged: &mut Option<(String, Money)>,
    ) -> Result<Progress, Failure> {
        let step = settlement::next_step(&standing.order.aggregate, &standing.payment.aggregate);
        let outcome = match step {
            Step::Nothing => return Ok(Progress::Settled),
            Step::Charge { amount, payment_method } => {
                if let Some((payment_intent_id, _)) = charged.clone() {
                    Outcome::captured(payment_intent_id, amount, true)
                } else {
                    self.charge(standing.order_id, amount, payment_method, charged).await?
                }
            }
            Step::Confirm { payment_intent_id } => Outcome { order: Some(confirm(payment_intent_id)), payment: None },
            Step::CancelDeclined { message } => Outcome { order: Some(cancel_declined(message)), payment: None },
            Step::FindCharge => match self.find_charge(standing.order_id, charged).await? {
                Some((payment_intent_id, amount)) => Outcome::captured(payment_intent_id, amount, false),
                None => return Ok(Progress::Settled),
            },
            Step::Refund { payment_intent_id, amount } => {
                let _call = self.gateway_call().await?;
                let refund = self.gateway.refund(standing.order_id.0, &payment_intent_id, amount.minor_units).await;
                let refund_id = refund.map_err(gateway_failure)?.refund_id;
                let command = payment::RecordRefund { refund_id, refunded_at: clock::now() };
                Outcome { order: None, payment: Some(PaymentCommand::RecordRefund(command)) }
            }
        };
        self.record(standing, outcome, &caused_by(cause, &IDENTITY, clock::now())).await
    }

    /// Waits until one more call to the gateway may be made; it has ended when this is dropped.
    async fn gateway_call(&self) -> Result<SemaphorePermit<'_>, Failure> {
        tokio::select! {
            biased;
            () = self.drain.started() => Err(Failure::transient(Draining)),
            call = self.gateway_calls.acquire() => Ok(call.expect("the semaphore is never closed")),
        }
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
        let call = self.gateway_call().await?;
        let charged_now = self.gateway.charge(&request).await;
        drop(call);
        match charged_now {
            Ok(ChargeOutcome::Captured { payment_intent_id }) => {
                *charged = Some((payment_intent_id.clone(), amount));
                Ok(Outcome::captured(payment_intent_id, amount, true))
            }
            Ok(ChargeOutcome::Declined { code, message }) => Ok(Outcome::declined(code, message)),
            // The gateway understood and will never accept this charge: the customer's order ends, the others go on.
            Err(GatewayError::Permanent { status, code, message, .. }) if is_about_the_request(status) => {
                Ok(Outcome::declined(code, message))
            }
            Err(error) => Err(gateway_failure(error)),
        }
    }

    async fn find_charge(
        &self,
        order_id: OrderId,
        charged: &mut Option<(String, Money)>,
    ) -> Result<Option<(String, Money)>, Failure> {
        if let Some(charged) = charged.clone() {
            return Ok(Some(charged));
        }
        let call = self.gateway_call().await?;
        let found = self.gateway.find_charge(order_id.0).await.map_err(gateway_failure)?;
        drop(call);
        let Some(found) = found else { return Ok(None) };
        let currency = found.currency.to_uppercase().parse().map_err(Failure::permanent)?;
        Ok(Some((found.payment_intent_id, Money::new(found.amount_minor, currency))))
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
    reason.truncate(reason.floor_char_boundary(order::TEXT_BYTES_MAX));
    OrderCommand::Cancel(order::Cancel { cause: Cause::PaymentDeclined, reason, cancelled_at: clock::now(), request: None })
}

/// Whether the gateway's refusal is about this one charge or refund. 401 and 403 are about our key, 404 and 405 about the
/// address: nobody's order suffers from those; they wait until the setting is mended.
fn is_about_the_request(status: u16) -> bool {
    matches!(status, 200 | 400 | 402 | 422)
}

fn gateway_failure(error: GatewayError) -> Failure {
    match &error {
        GatewayError::Transient { retry_after, .. } => Failure::Transient { retry_after: *retry_after, source: Box::new(error) },
        GatewayError::Permanent { status, .. } if is_about_the_request(*status) => Failure::permanent(error),
        GatewayError::Permanent { .. } => Failure::transient(error),
    }
}

fn load_failure(error: LoadError) -> Failure {
    match error {
        LoadError::Read(_) => Failure::transient(error),
        _ => Failure::permanent(error),
    }
}
