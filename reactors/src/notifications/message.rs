//! What a message says.

use domain::{
    NotificationId, OrderId,
    notification::Topic,
    order::{Order, Placement},
};

/// A message to one customer, not yet in any channel's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) id: NotificationId,
    pub(super) to_name: String,
    pub(super) to_email: String,
    pub(super) subject: String,
    pub(super) text: String,
}

/// The message about `topic`, or `None` if the order was never placed.
pub(super) fn compose(id: NotificationId, order_id: OrderId, order: &Order, topic: Topic) -> Option<Message> {
    let placement = order.placement.as_ref()?;
    let (subject, news) = match topic {
        Topic::OrderConfirmed => ("Your order is confirmed", paid(placement)),
        Topic::OrderRejected => ("We could not fulfil your order", rejected(order)),
        Topic::OrderCancelled => ("Your order was cancelled", cancelled(order)),
        Topic::OrderShipped => ("Your order is on its way", shipped(order)),
        Topic::OrderDelivered => ("Your order has arrived", "Your parcel was delivered. Enjoy!".to_owned()),
        Topic::PaymentRefunded => ("Your money is on its way back", refunded(placement)),
    };
    let text = format!(
        "Hello {name},\n\n{news}\n\n{lines}\n\nTotal: {total}\nOrder: {order_id}\n",
        name = placement.customer.name,
        lines = lines(placement),
        total = placement.total,
    );
    Some(Message {
        id,
        to_name: placement.customer.name.clone(),
        to_email: placement.customer.email.clone(),
        subject: subject.to_owned(),
        text,
    })
}

fn paid(placement: &Placement) -> String {
    format!("Thank you for your order. We received your payment of {} and are packing.", placement.total)
}

fn refunded(placement: &Placement) -> String {
    format!("We refunded {} to the card or account that you paid with.", placement.total)
}

fn rejected(order: &Order) -> String {
    let short: Vec<_> = order.shortages.iter().map(|shortage| shortage.sku.as_str()).collect();
    format!("We are sorry: {} is out of stock, so your order cannot be fulfilled. You were not charged.", short.join(", "))
}

fn cancelled(order: &Order) -> String {
    let reason = order.cancellation.as_ref().map_or("", |cancellation| cancellation.reason.trim_end_matches('.'));
    format!("Your order was cancelled: {reason}. If you were charged, your money is on its way back.")
}

fn shipped(order: &Order) -> String {
    order.shipment.as_ref().map_or_else(
        || "Your parcel is on its way.".to_owned(),
        |shipment| format!("Your parcel is with {}, number {}.", shipment.carrier, shipment.tracking_number),
    )
}

fn lines(placement: &Placement) -> String {
    let lines = placement.lines.iter().map(|line| format!("  {} × {}", line.quantity, line.sku));
    lines.collect::<Vec<_>>().join("\n")
}
