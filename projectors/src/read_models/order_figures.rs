//! What the live `contrail.orders` tells of orders on `/metrics`.
//!
//! Events are counted once they are applied, each once whatever dies when, by whichever instance has applied it: the sum over all instances
//! is what there was. Orders are not counted by their status here: that would be a look at every row.

use domain::{
    notification::NotificationEvent,
    order::{Cause, OrderEvent},
    payment::PaymentEvent,
};
use prometheus_client::{
    metrics::{counter::Counter, family::Family, histogram::Histogram},
    registry::Registry,
};
use read_store::views::OrderView;
use telemetry::metrics::Metrics;

use super::{orders::OrderChange, view_table::Tally};

/// From an order that meets nobody else to one whose payment is due (15 minutes after its stock was set aside, unless said otherwise).
const CONFIRMATION_BUCKETS_S: [f64; 15] =
    [0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 900.0, 3_600.0];

/// Counts what happens to orders, their payments and what their customers are told.
#[derive(Debug)]
pub(crate) struct OrderFigures {
    orders: Counted,
    cancellations: Counted,
    payments: Counted,
    notifications: Counted,
    stock_outs: Counter,
    stock_outs_uncommitted: u64,
    confirmation: Histogram,
    confirmations_uncommitted: Vec<f64>,
}

impl OrderFigures {
    /// Registers what is counted.
    pub(crate) fn register(metrics: &Metrics) -> Self {
        metrics.register(|registry| {
            let orders = Counted::register(
                registry,
                ("order_events", "Events of orders that were applied, by what happened"),
                "event",
                &["placed", "stock_reserved", "rejected", "confirmed", "cancelled", "shipped", "delivered"],
            );
            let cancellations = Counted::register(
                registry,
                ("order_cancellations", "Orders that were called off, by who or what did so"),
                "cause",
                &["customer", "operator", "payment_declined", "payment_deadline"],
            );
            let payments = Counted::register(
                registry,
                (
                    "payment_events",
                    "Events of payments that were applied, by what happened; each charge and refund is in there once",
                ),
                "event",
                &["captured", "declined", "refunded", "given_up"],
            );
            let notifications = Counted::register(
                registry,
                ("notification_events", "What customers were told, or could not be told"),
                "event",
                &["sent", "failed"],
            );
            let (stock_outs, confirmation) = (Counter::default(), Histogram::new(CONFIRMATION_BUCKETS_S));
            let help = "Lines of orders that were rejected because there was too little stock for them";
            registry.register("order_stock_outs", help, stock_outs.clone());
            let help = "From the request that placed an order to its confirmation, by the clocks of those who did so";
            registry.register("order_confirmation_duration_seconds", help, confirmation.clone());
            Self {
                orders,
                cancellations,
                payments,
                notifications,
                stock_outs,
                stock_outs_uncommitted: 0,
                confirmation,
                confirmations_uncommitted: Vec::new(),
            }
        })
    }

    fn counted(&mut self) -> impl Iterator<Item = &mut Counted> {
        [&mut self.orders, &mut self.cancellations, &mut self.payments, &mut self.notifications].into_iter()
    }

    fn count_order(&mut self, order: &OrderView, event: &OrderEvent) {
        let what = match event {
            OrderEvent::Placed(_) => "placed",
            OrderEvent::StockReserved(_) => "stock_reserved",
            OrderEvent::Rejected(rejected) => {
                self.stock_outs_uncommitted += rejected.shortages.len() as u64;
                "rejected"
            }
            OrderEvent::Confirmed(confirmed) => {
                let took = confirmed.confirmed_at - order.placed_at;
                // The clocks of two hosts may differ.
                self.confirmations_uncommitted.push(took.as_seconds_f64().max(0.0));
                "confirmed"
            }
            OrderEvent::Cancelled(cancelled) => {
                self.cancellations.count(match cancelled.cause {
                    Cause::Customer => "customer",
                    Cause::Operator => "operator",
                    Cause::PaymentDeclined => "payment_declined",
                    Cause::PaymentDeadline => "payment_deadline",
                });
                "cancelled"
            }
            OrderEvent::Shipped(_) => "shipped",
            OrderEvent::Delivered(_) => "delivered",
            // It has no metric yet.
            _ => return,
        };
        self.orders.count(what);
    }
}

impl Tally<OrderView> for OrderFigures {
    fn count(&mut self, order: &OrderView, change: &OrderChange) {
        match change {
            OrderChange::Order(event) => self.count_order(order, event),
            OrderChange::Payment(event) => self.payments.count(match event {
                PaymentEvent::Captured(_) => "captured",
                PaymentEvent::Declined(_) => "declined",
                PaymentEvent::Refunded(_) => "refunded",
                PaymentEvent::GivenUp(_) => "given_up",
            }),
            OrderChange::Notification(_, event) => self.notifications.count(match event {
                NotificationEvent::Sent(_) => "sent",
                NotificationEvent::Failed(_) => "failed",
            }),
        }
    }

    fn commit(&mut self) {
        self.counted().for_each(Counted::commit);
        self.stock_outs.inc_by(std::mem::take(&mut self.stock_outs_uncommitted));
        for seconds in self.confirmations_uncommitted.drain(..) {
            self.confirmation.observe(seconds);
        }
    }

    fn forget(&mut self) {
        self.counted().for_each(Counted::forget);
        self.stock_outs_uncommitted = 0;
        self.confirmations_uncommitted.clear();
    }
}

/// One counter for each of a few things, with what is not committed yet.
#[derive(Debug)]
struct Counted(Vec<(&'static str, Counter, u64)>);

impl Counted {
    /// All of them begin at zero: where there is nothing at all, no rate can be told from its first increase.
    fn register(
        registry: &mut Registry,
        (name, help): (&'static str, &'static str),
        label: &'static str,
        values: &[&'static str],
    ) -> Self {
        let family = Family::<[(&'static str, &'static str); 1], Counter>::default();
        registry.register(name, help, family.clone());
        Self(values.iter().map(|value| (*value, family.get_or_create_owned(&[(label, *value)]), 0)).collect())
    }

    fn count(&mut self, value: &str) {
        let counted = self.0.iter_mut().find(|(name, ..)| *name == value);
        counted.expect("everything that is counted was registered").2 += 1;
    }

    fn commit(&mut self) {
        for (_, counter, uncommitted) in &mut self.0 {
            counter.inc_by(std::mem::take(uncommitted));
        }
    }

    fn forget(&mut self) {
        self.0.iter_mut().for_each(|(_, _, uncommitted)| *uncommitted = 0);
    }
}
