//! What a message says.

use domain::{
    NotificationId, OrderId,
    notification::Topic,
    order::{Line, Order, Placement},
};

/// A message to one customer, not yet in any channel's form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) id: NotificationId,
    pub(super) to_name: String,
    pub(super) to_email: String,
    pub(super) subject: String,
    /// For programs that show nothing but text.
    pub(super) text: String,
    /// The same, for those that show more.
    pub(super) html: String,
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
    Some(Message {
        id,
        to_name: placement.customer.name.clone(),
        to_email: placement.customer.email.clone(),
        subject: subject.to_owned(),
        text: text(placement, order_id, &news),
        html: html(placement, order_id, subject, &news),
    })
}

fn text(placement: &Placement, order_id: OrderId, news: &str) -> String {
    let lines: Vec<_> = placement.lines.iter().map(|line| format!("  {} × {}", line.quantity, line.sku)).collect();
    let (name, lines, total) = (&placement.customer.name, lines.join("\n"), placement.total);
    format!("Hello {name},\n\n{news}\n\n{lines}\n\nTotal: {total}\nOrder: {order_id}\n")
}

/// Without pictures, scripts or anything else that would be fetched; styles stand where they apply, because many programs drop the rest.
fn html(placement: &Placement, order_id: OrderId, subject: &str, news: &str) -> String {
    const CELL: &str = "padding:8px 0;border-bottom:1px solid #e5e7eb";
    let row = |line: &Line| {
        let (sku, quantity) = (escaped(line.sku.as_str()), line.quantity);
        format!("<tr><td style=\"{CELL}\">{sku}</td><td style=\"{CELL};text-align:right\">{quantity}</td></tr>\n")
    };
    let rows = placement.lines.iter().map(row).collect::<Vec<_>>().concat();
    let (name, news, total) = (escaped(&placement.customer.name), escaped(news), placement.total);
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>{subject}</title></head>\n\
         <body style=\"margin:0;padding:24px;background:#f3f4f6;color:#111827;font:16px/1.5 system-ui,sans-serif\">\n\
         <div style=\"max-width:560px;margin:0 auto;padding:32px;background:#ffffff;border-radius:8px\">\n\
         <h1 style=\"margin:0 0 16px;font-size:22px\">{subject}</h1>\n\
         <p>Hello {name},</p>\n<p>{news}</p>\n\
         <table style=\"width:100%;border-collapse:collapse\">\n{rows}\
         <tr><td style=\"padding:8px 0\"><strong>Total</strong></td>\
         <td style=\"padding:8px 0;text-align:right\"><strong>{total}</strong></td></tr>\n</table>\n\
         <p style=\"color:#6b7280;font-size:14px\">Order {order_id}</p>\n</div>\n</body>\n</html>\n"
    )
}

/// A text as it stands in HTML, so that nobody's name can be more than a name.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for char in text.chars() {
        match char {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

fn paid(placement: &Placement) -> String {
    format!("Thank you for your order. We received your payment of {} and are packing.", placement.total)
}

fn refunded(placement: &Placement) -> String {
    format!("We refunded {} to the card or account that you paid with.", placement.total)
}

fn rejected(order: &Order) -> String {
    let short: Vec<_> = order.shortages.iter().map(|shortage| shortage.sku.as_str()).collect();
    format!("We are sorry: we do not have enough of {}, so your order cannot be fulfilled. You were not charged.", short.join(", "))
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

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn a_name_is_never_more_than_a_name() {
        assert_eq!(escaped("<b onclick='x'>\"A&B\"</b>"), "&lt;b onclick=&#39;x&#39;&gt;&quot;A&amp;B&quot;&lt;/b&gt;");
        assert_eq!(escaped("Zoë 東京"), "Zoë 東京");
    }
}
