//! Where the log and the gateway differ. Pure.

use std::collections::BTreeMap;

use domain::{OrderId, order::OrderStatus, payment::PaymentStatus};
use serde::Serialize;
use time::OffsetDateTime;

use super::{
    Report,
    books::{Account, Books},
};
use crate::payments::gateway::{MadeCharge, Statement};

/// One difference.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Of what kind.
    pub kind: Kind,
    /// The order, if the charge names one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub order_id: Option<String>,
    /// The gateway's id of the payment.
    pub payment_intent_id: String,
    /// What is different, for people.
    pub detail: String,
    /// What mends it.
    pub fix: Fix,
    /// Whether it was mended; nothing, if nobody has tried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fixed: Option<bool>,
}

/// What kind of difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The gateway took money that the log does not know of.
    ChargeNotRecorded,
    /// The gateway took the money for an order more than once, and has kept more than one of these.
    ChargedTwice,
    /// The log says that money was taken, and the gateway does not.
    ChargeMissing,
    /// The two name different amounts.
    AmountDiffers,
    /// The gateway gave money back that the log takes for ours.
    RefundNotRecorded,
    /// The log says that the money was given back, and the gateway does not.
    RefundMissing,
    /// The order was called off, and the gateway still has the money.
    RefundOwed,
    /// The charge names an order that does not exist.
    UnknownOrder,
}

/// What mends a difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case", tag = "action")]
pub enum Fix {
    /// To have the payments reactor handle this event again.
    HandleAgain {
        /// Its place in the log.
        position: u64,
    },
    /// To give back a charge that pays for nothing.
    GiveBack {
        /// What is left of it, in the minor unit that ISO 4217 gives the currency.
        amount_minor: i64,
    },
    /// Somebody who looks into it.
    ByHand,
}

/// Holds `books` against `statement`, leaving out what happened before `since` or after `until`.
pub(super) fn compare(books: &Books, statement: &Statement, since: Option<OffsetDateTime>, until: OffsetDateTime) -> Report {
    let mut report = Report {
        orders: books.orders.len(),
        charges: statement.charges.len(),
        refunds: statement.charges.values().filter(|charge| charge.refunded_minor > 0).count(),
        ..Report::default()
    };
    let mut by_order: BTreeMap<OrderId, Vec<&MadeCharge>> = BTreeMap::new();
    for charge in statement.charges.values() {
        match charge.order_id.map(OrderId) {
            Some(order_id) if books.orders.contains_key(&order_id) => by_order.entry(order_id).or_default().push(charge),
            // Somebody else's charge on the same account.
            None => report.foreign += 1,
            Some(_) if charge.made_at > until => report.recent += 1,
            Some(order_id) => {
                let detail = format!("{charge} for order {order_id}, which is not in the log");
                report.differences.push(Difference::of(Kind::UnknownOrder, Some(order_id), charge, detail, Fix::ByHand));
            }
        }
    }
    let nothing = Vec::new();
    for (order_id, account) in &books.orders {
        let charges = by_order.get(order_id).unwrap_or(&nothing);
        let is_recent = account.moved_at.is_some_and(|at| at > until) || charges.iter().any(|charge| charge.made_at > until);
        if is_recent {
            report.recent += 1;
            continue;
        }
        let is_old = since.is_some_and(|since| account.moved_at.is_none_or(|at| at < since));
        if !(is_old && charges.is_empty()) {
            report.differences.extend(of_order(*order_id, account, charges, since.is_none()));
        }
    }
    report.differences.sort_by(|a, b| (a.kind, &a.order_id).cmp(&(b.kind, &b.order_id)));
    report
}

/// Where the log and `charges`, which are all of the order's if `are_all`, differ.
fn of_order(order_id: OrderId, account: &Account, charges: &[&MadeCharge], are_all: bool) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut found = |kind, charge: &MadeCharge, detail: String, fix| {
        differences.push(Difference::of(kind, Some(order_id), charge, detail, fix));
    };
    let recorded = account.payment.capture.as_ref();
    let again = account.acted_on.map_or(Fix::ByHand, |position| Fix::HandleAgain { position });
    // The recorded charge is the one that counts; without one, the first that was kept, or else the first.
    let is_recorded = |charge: &&&MadeCharge| recorded.is_some_and(|capture| capture.payment_intent_id == charge.payment_intent_id);
    let counts = charges.iter().find(is_recorded).or_else(|| match recorded {
        Some(_) => None,
        None => charges.iter().find(|charge| !charge.is_refunded()).or(charges.first()),
    });
    for surplus in charges.iter().filter(|charge| !charge.is_refunded()) {
        if counts.is_some_and(|counts| counts.payment_intent_id != surplus.payment_intent_id) {
            found(Kind::ChargedTwice, surplus, format!("{surplus}, beside another charge for the same order"), give_back(surplus));
        } else if counts.is_none() && !are_all {
            // The recorded one is older than the statement. Whether it was kept does not show.
            let detail = format!("{surplus}, beside an earlier charge for the same order: compare from before that on");
            found(Kind::ChargedTwice, surplus, detail, Fix::ByHand);
        }
    }
    let status = account.order.status;
    match (counts, recorded) {
        (None, None) => {}
        // Older than the statement, and so not missing.
        (None, Some(_)) if !are_all => {}
        (None, Some(capture)) => differences.push(Difference {
            kind: Kind::ChargeMissing,
            order_id: Some(order_id.to_string()),
            payment_intent_id: capture.payment_intent_id.clone(),
            detail: format!("the log has a charge of {}, the gateway has none", capture.amount),
            fix: Fix::ByHand,
            fixed: None,
        }),
        // Whatever it was, it is undone.
        (Some(charge), None) if charge.is_refunded() => {}
        (Some(charge), None) => {
            let detail =
                format!("{charge}, of which the log knows nothing; the order is {}", status.map_or("none", OrderStatus::as_str));
            let fix = match (status, account.payment.status) {
                (Some(OrderStatus::Reserved | OrderStatus::Cancelled), PaymentStatus::None) => again,
                // Declined, which is final: nothing that the reactor does would come of it.
                (Some(OrderStatus::Cancelled), _) => give_back(charge),
                _ => Fix::ByHand,
            };
            found(Kind::ChargeNotRecorded, charge, detail, fix);
        }
        (Some(charge), Some(capture)) => {
            if (charge.amount_minor, charge.currency.as_str()) != (capture.amount.minor_units, capture.amount.currency.code()) {
                found(Kind::AmountDiffers, charge, format!("{charge}, where the log has {}", capture.amount), Fix::ByHand);
            }
            let is_off = matches!(status, Some(OrderStatus::Cancelled | OrderStatus::Rejected));
            match (account.payment.status, charge.refunded_minor) {
                (PaymentStatus::Refunded, refunded) if refunded < charge.amount_minor => {
                    found(Kind::RefundMissing, charge, format!("{charge}, all of which the log takes for given back"), Fix::ByHand);
                }
                (PaymentStatus::Captured, _) if is_off => {
                    found(Kind::RefundOwed, charge, format!("{charge}, and the order was called off"), again);
                }
                (PaymentStatus::Captured, 1..) => {
                    found(Kind::RefundNotRecorded, charge, format!("{charge}, all of which the log takes for ours"), Fix::ByHand);
                }
                _ => {}
            }
        }
    }
    differences
}

/// To give back what is left of a charge.
fn give_back(charge: &MadeCharge) -> Fix {
    Fix::GiveBack { amount_minor: charge.amount_minor - charge.refunded_minor }
}

impl Difference {
    fn of(kind: Kind, order_id: Option<OrderId>, charge: &MadeCharge, detail: String, fix: Fix) -> Self {
        let (order_id, payment_intent_id) = (order_id.map(|id| id.to_string()), charge.payment_intent_id.clone());
        Self { kind, order_id, payment_intent_id, detail, fix, fixed: None }
    }
}

#[cfg(test)]
mod tests {
    use domain::{
        Money,
        order::Order,
        payment::{Capture, Payment},
    };
    use time::{Duration, macros::datetime};
    use uuid::Uuid;

    use super::*;

    const THEN: OffsetDateTime = datetime!(2026-11-21 12:00 UTC);
    const ORDER: OrderId = OrderId(Uuid::from_u128(7));

    fn charge(id: &str, refunded_minor: i64) -> MadeCharge {
        let (currency, made_at) = ("EUR".to_owned(), THEN);
        MadeCharge {
            payment_intent_id: id.to_owned(),
            order_id: Some(ORDER.0),
            amount_minor: 1_250,
            refunded_minor,
            currency,
            made_at,
        }
    }

    fn account(order: OrderStatus, payment: PaymentStatus, captured: Option<(&str, i64)>) -> Account {
        let capture = captured.map(|(id, minor_units)| Capture {
            payment_intent_id: id.to_owned(),
            amount: Money::new(minor_units, "EUR".parse().expect("a currency")),
        });
        let order = Order { status: Some(order), ..Order::default() };
        let payment = Payment { status: payment, capture, ..Payment::default() };
        Account { order, payment, acted_on: Some(3), moved_at: Some(THEN) }
    }

    fn found(account: Account, charges: &[MadeCharge]) -> Vec<(Kind, Fix)> {
        found_since(None, account, charges)
    }

    fn found_since(since: Option<OffsetDateTime>, account: Account, charges: &[MadeCharge]) -> Vec<(Kind, Fix)> {
        let books = Books { orders: BTreeMap::from([(ORDER, account)]) };
        let charges = charges.iter().map(|charge| (charge.payment_intent_id.clone(), charge.clone())).collect();
        let report = compare(&books, &Statement { charges }, since, THEN);
        report.differences.into_iter().map(|difference| (difference.kind, difference.fix)).collect()
    }

    const AGAIN: Fix = Fix::HandleAgain { position: 3 };
    const BACK: Fix = Fix::GiveBack { amount_minor: 1_250 };

    #[test]
    fn each_way_to_differ_has_its_name_and_what_mends_it() {
        use OrderStatus::{Cancelled, Confirmed, Placed, Reserved};
        use PaymentStatus::{Captured, Declined, None as Nothing, Refunded};
        let ours = Some(("pi_1", 1_250));
        let one = [charge("pi_1", 0)];
        let agree = [
            found(account(Confirmed, Captured, ours), &one),
            found(account(Cancelled, Refunded, ours), &[charge("pi_1", 1_250)]),
            found(account(Reserved, Nothing, None), &[]),
            // Taken and given back without the log's knowing: nobody is owed anything.
            found(account(Cancelled, Nothing, None), &[charge("pi_1", 1_250)]),
            // A second charge was given back already.
            found(account(Confirmed, Captured, ours), &[charge("pi_1", 0), charge("pi_2", 1_250)]),
        ];
        assert!(agree.iter().all(Vec::is_empty), "{agree:?}");
        assert_eq!(found(account(Reserved, Nothing, None), &one), [(Kind::ChargeNotRecorded, AGAIN)]);
        assert_eq!(found(account(Cancelled, Nothing, None), &one), [(Kind::ChargeNotRecorded, AGAIN)]);
        assert_eq!(found(account(Cancelled, Declined, None), &one), [(Kind::ChargeNotRecorded, BACK)]);
        assert_eq!(found(account(Reserved, Declined, None), &one), [(Kind::ChargeNotRecorded, Fix::ByHand)]);
        assert_eq!(found(account(Placed, Nothing, None), &one), [(Kind::ChargeNotRecorded, Fix::ByHand)]);
        assert_eq!(found(account(Confirmed, Captured, ours), &[]), [(Kind::ChargeMissing, Fix::ByHand)]);
        assert_eq!(found(account(Confirmed, Captured, Some(("pi_1", 99))), &one), [(Kind::AmountDiffers, Fix::ByHand)]);
        assert_eq!(found(account(Confirmed, Captured, ours), &[charge("pi_1", 1)]), [(Kind::RefundNotRecorded, Fix::ByHand)]);
        assert_eq!(found(account(Cancelled, Refunded, ours), &[charge("pi_1", 1_249)]), [(Kind::RefundMissing, Fix::ByHand)]);
        assert_eq!(found(account(Cancelled, Captured, ours), &one), [(Kind::RefundOwed, AGAIN)]);
        // Of two, the recorded one stays, whichever came first.
        for (recorded, _) in [("pi_1", "pi_2"), ("pi_2", "pi_1")] {
            let account = account(Confirmed, Captured, Some((recorded, 1_250)));
            assert_eq!(found(account, &[charge("pi_1", 0), charge("pi_2", 0)]), [(Kind::ChargedTwice, BACK)]);
        }
        let neither_recorded = found(account(Reserved, Nothing, None), &[charge("pi_1", 0), charge("pi_2", 0)]);
        assert_eq!(neither_recorded, [(Kind::ChargeNotRecorded, AGAIN), (Kind::ChargedTwice, BACK)]);
        // The log has one that the gateway does not, beside one that it does.
        let another = found(account(Confirmed, Captured, Some(("pi_9", 1_250))), &one);
        assert_eq!(another, [(Kind::ChargeMissing, Fix::ByHand)]);
    }

    #[test]
    fn a_second_charge_is_found_though_the_first_is_older_than_the_statement() {
        let recorded = || account(OrderStatus::Confirmed, PaymentStatus::Captured, Some(("pi_1", 1_250)));
        assert_eq!(found_since(Some(THEN), recorded(), &[]), []);
        assert_eq!(found_since(Some(THEN), recorded(), &[charge("pi_2", 0)]), [(Kind::ChargedTwice, Fix::ByHand)]);
        assert_eq!(found_since(Some(THEN), recorded(), &[charge("pi_2", 1_250)]), []);
        assert_eq!(
            found_since(Some(THEN), recorded(), &[charge("pi_1", 0), charge("pi_2", 250)]),
            [(Kind::ChargedTwice, Fix::GiveBack { amount_minor: 1_000 })]
        );
    }

    #[test]
    fn what_has_moved_just_now_is_left_for_the_next_time() {
        let recent = MadeCharge { made_at: THEN + Duration::SECOND, ..charge("pi_1", 0) };
        assert_eq!(found(account(OrderStatus::Reserved, PaymentStatus::None, None), &[recent]), []);
        let moved = Account {
            moved_at: Some(THEN + Duration::SECOND),
            ..account(OrderStatus::Cancelled, PaymentStatus::Captured, Some(("pi_1", 1_250)))
        };
        assert_eq!(found(moved, &[charge("pi_1", 0)]), []);
    }
}
