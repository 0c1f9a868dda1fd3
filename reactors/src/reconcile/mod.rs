//! `reactors reconcile`: holds the log against the gateway's own account of what it took and gave back.
//!
//! Both are right most of the time, and this finds where they are not: a charge that nobody recorded, one made twice, a refund made by hand.
//! With `--fix` it has the payments reactor handle the order's event again, which records what the gateway knows and gives back what is
//! owed; and it gives back what was charged twice. The rest is for people.

mod books;
mod compare;
mod report;

use std::{collections::BTreeSet, time::Duration};

use event_store::{JetStreamEventStore, ReadError, Redriven};
use time::OffsetDateTime;

use self::{books::Books, compare::compare};
pub use self::{
    compare::{Difference, Fix, Kind},
    report::Report,
};
use crate::{
    clock,
    payments::{Payments, gateway::GatewayError, stripe::StripeGateway},
    reactor::Reactor as _,
};

/// How long the payments reactor may be silent about an event that it is asked for.
const PATIENCE: Duration = Duration::from_secs(10);

/// What to compare.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// Only what happened since then; everything, if left out.
    pub since: Option<OffsetDateTime>,
    /// What happened within this time may still be on its way from one side to the other, and is left for the next time.
    pub settle: Duration,
}

/// Why the two could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The log cannot be read now.
    #[error("try again later")]
    Log(#[from] ReadError),
    /// The log does not go on.
    #[error("try again later: the log does not answer")]
    LogStalled,
    /// The gateway did not tell what it has done.
    #[error("ask the gateway what it has done")]
    Gateway(#[from] GatewayError),
}

/// Compares the log with the gateway's account. Changes nothing.
pub async fn reconcile(store: &JetStreamEventStore, gateway: &StripeGateway, scope: Scope) -> Result<Report, ReconcileError> {
    let until = clock::now() - scope.settle;
    // The gateway first: what it has done by then and the log does not know is not on its way for long.
    let statement = gateway.statement(scope.since).await?;
    let books = Books::read(store).await?;
    Ok(compare(&books, &statement, scope.since, until))
}

/// Mends what can be mended, and notes in `report` what was.
pub async fn fix(store: &JetStreamEventStore, gateway: &StripeGateway, report: &mut Report) -> Result<(), ReconcileError> {
    let is_settled_anew = |difference: &&Difference| matches!(difference.fix, Fix::HandleAgain { .. });
    let settled_anew: BTreeSet<_> =
        report.differences.iter().filter(is_settled_anew).filter_map(|difference| difference.order_id.clone()).collect();
    for difference in &mut report.differences {
        let is_open = difference.order_id.as_ref().is_some_and(|order_id| settled_anew.contains(order_id));
        if matches!(difference.fix, Fix::GiveBack { .. }) && is_open {
            // Which of its charges is the one too many is not sure before the log has one of them.
            difference.fixed = Some(false);
            difference.detail = format!("{}; to be mended the next time, once the order's charge is recorded", difference.detail);
            continue;
        }
        let outcome = match &difference.fix {
            Fix::HandleAgain { position } => match store.redrive(Payments::NAME, *position, PATIENCE).await? {
                Redriven::Done => Ok(()),
                Redriven::Failed { error_chain, .. } => Err(error_chain.join(": ")),
                Redriven::NotNow => Err("the payments reactor cannot do it now".to_owned()),
                Redriven::NobodyThere => Err("nobody runs the payments reactor".to_owned()),
                Redriven::NoAnswer => Err("the payments reactor gave no sign of life".to_owned()),
            },
            Fix::GiveBack { amount_minor } => {
                let refunded = gateway.refund_surplus(&difference.payment_intent_id, *amount_minor).await;
                refunded.map(drop).map_err(|error| error.to_string())
            }
            Fix::ByHand => continue,
        };
        match outcome {
            Ok(()) => difference.fixed = Some(true),
            Err(why) => {
                difference.fixed = Some(false);
                difference.detail = format!("{}; it was not mended: {why}", difference.detail);
            }
        }
    }
    Ok(())
}
