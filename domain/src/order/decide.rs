//! What an order answers to a command: events, or a rejection.
//!
//! The same command twice returns no events the second time, so a retry, a redelivery and a lost answer are all
//! harmless.

use super::{
    Cancel, Cause, Confirm, Deliver, LINE_QUANTITY_MAX, LINES_MAX, Line, Order, OrderCancelled, OrderCommand, OrderConfirmed,
    OrderDelivered, OrderError, OrderEvent, OrderPlaced, OrderRejected, OrderShipped, OrderStatus, OrderStockReserved, Place,
    RecordReservation, Reject, Ship, TEXT_CHARS_MAX, TOTAL_MINOR_MAX, UNIT_PRICE_MINOR_MAX,
};
use crate::{Currency, Money, Request, RequestMemory};

/// Decides `command` on `order`.
pub fn decide(order: &Order, command: OrderCommand) -> Result<Vec<OrderEvent>, OrderError> {
    match command {
        OrderCommand::Place(command) => place(order, command),
        OrderCommand::RecordReservation(command) => record_reservation(order, &command),
        OrderCommand::Reject(command) => reject(order, command),
        OrderCommand::Confirm(command) => confirm(order, command),
        OrderCommand::Cancel(command) => cancel(order, command),
        OrderCommand::Ship(command) => ship(order, command),
        OrderCommand::Deliver(command) => deliver(order, command),
    }
}

fn place(order: &Order, command: Place) -> Result<Vec<OrderEvent>, OrderError> {
    if order.status.is_some() {
        return match order.requests.look_up(&command.request) {
            RequestMemory::Repeated => Ok(vec![]),
            // The order's id is derived from the key: whoever arrives here with another body reused the key.
            RequestMemory::KeyReused | RequestMemory::New => Err(OrderError::KeyReused),
        };
    }
    check_text("customer.email", &command.customer.email)?;
    check_text("customer.name", &command.customer.name)?;
    check_text("payment_method", &command.payment_method)?;
    let total = total(&command.lines, command.currency)?;
    Ok(vec![
        OrderPlaced {
            customer: command.customer,
            currency: command.currency,
            lines: command.lines,
            total_minor: total.minor_units,
            payment_method: command.payment_method,
            placed_at: command.placed_at,
            request: command.request,
        }
        .into(),
    ])
}

fn record_reservation(order: &Order, command: &RecordReservation) -> Result<Vec<OrderEvent>, OrderError> {
    match status(order)? {
        OrderStatus::Placed => {
            Ok(vec![OrderStockReserved { reserved_at: command.reserved_at, payment_due_at: command.payment_due_at }.into()])
        }
        OrderStatus::Reserved | OrderStatus::Confirmed | OrderStatus::Shipped | OrderStatus::Delivered => Ok(vec![]),
        status @ (OrderStatus::Rejected | OrderStatus::Cancelled) => illegal(status, "reserved"),
    }
}

fn reject(order: &Order, command: Reject) -> Result<Vec<OrderEvent>, OrderError> {
    match status(order)? {
        OrderStatus::Placed => Ok(vec![OrderRejected { shortages: command.shortages, rejected_at: command.rejected_at }.into()]),
        OrderStatus::Rejected => Ok(vec![]),
        status => illegal(status, "rejected"),
    }
}

fn confirm(order: &Order, command: Confirm) -> Result<Vec<OrderEvent>, OrderError> {
    match status(order)? {
        OrderStatus::Reserved => {
            Ok(vec![OrderConfirmed { payment_intent_id: command.payment_intent_id, confirmed_at: command.confirmed_at }.into()])
        }
        OrderStatus::Confirmed | OrderStatus::Shipped | OrderStatus::Delivered
            if order.payment_intent_id.as_ref() == Some(&command.payment_intent_id) =>
        {
            Ok(vec![])
        }
        status => illegal(status, "confirmed"),
    }
}

fn cancel(order: &Order, command: Cancel) -> Result<Vec<OrderEvent>, OrderError> {
    if is_repeated(order, command.request.as_ref())? {
        return Ok(vec![]);
    }
    check_text("reason", &command.reason)?;
    // Whoever has paid, or still may, has not missed the deadline.
    if command.cause == Cause::PaymentDeadline && !order.is_overdue(command.cancelled_at) {
        return status(order).map(|_| vec![]);
    }
    match status(order)? {
        OrderStatus::Placed | OrderStatus::Reserved | OrderStatus::Confirmed => Ok(vec![
            OrderCancelled {
                cause: command.cause,
                reason: command.reason,
                cancelled_at: command.cancelled_at,
                request: command.request,
            }
            .into(),
        ]),
        OrderStatus::Cancelled => Ok(vec![]),
        status => illegal(status, "cancelled"),
    }
}

fn ship(order: &Order, command: Ship) -> Result<Vec<OrderEvent>, OrderError> {
    if is_repeated(order, command.request.as_ref())? {
        return Ok(vec![]);
    }
    check_text("carrier", &command.carrier)?;
    check_text("tracking_number", &command.tracking_number)?;
    match (status(order)?, &order.shipment) {
        (OrderStatus::Confirmed, _) => Ok(vec![
            OrderShipped {
                carrier: command.carrier,
                tracking_number: command.tracking_number,
                shipped_at: command.shipped_at,
                request: command.request,
            }
            .into(),
        ]),
        (OrderStatus::Shipped | OrderStatus::Delivered, Some(shipment))
            if shipment.carrier == command.carrier && shipment.tracking_number == command.tracking_number =>
        {
            Ok(vec![])
        }
        (status, _) => illegal(status, "shipped"),
    }
}

fn deliver(order: &Order, command: Deliver) -> Result<Vec<OrderEvent>, OrderError> {
    if is_repeated(order, command.request.as_ref())? {
        return Ok(vec![]);
    }
    match status(order)? {
        OrderStatus::Shipped => Ok(vec![OrderDelivered { delivered_at: command.delivered_at, request: command.request }.into()]),
        OrderStatus::Delivered => Ok(vec![]),
        status => illegal(status, "delivered"),
    }
}

fn status(order: &Order) -> Result<OrderStatus, OrderError> {
    order.status.ok_or(OrderError::NotFound)
}

fn illegal(status: OrderStatus, attempted: &'static str) -> Result<Vec<OrderEvent>, OrderError> {
    Err(OrderError::IllegalTransition { status, attempted })
}

fn is_repeated(order: &Order, request: Option<&Request>) -> Result<bool, OrderError> {
    match request.map_or(RequestMemory::New, |request| order.requests.look_up(request)) {
        RequestMemory::New => Ok(false),
        RequestMemory::Repeated => Ok(true),
        RequestMemory::KeyReused => Err(OrderError::KeyReused),
    }
}

fn check_text(field: &'static str, text: &str) -> Result<(), OrderError> {
    if (1..=TEXT_CHARS_MAX).contains(&text.chars().count()) { Ok(()) } else { Err(OrderError::Text { field }) }
}

/// The sum over `lines`, each checked.
fn total(lines: &[Line], currency: Currency) -> Result<Money, OrderError> {
    if !(1..=LINES_MAX).contains(&lines.len()) {
        return Err(OrderError::LineCount(lines.len()));
    }
    let mut total = Money::new(0, currency);
    for line in lines {
        if !(1..=LINE_QUANTITY_MAX).contains(&line.quantity) {
            return Err(OrderError::Quantity(line.quantity));
        }
        if !(0..=UNIT_PRICE_MINOR_MAX).contains(&line.unit_price_minor) {
            return Err(OrderError::UnitPrice(line.unit_price_minor));
        }
        total = Money::new(line.unit_price_minor, currency)
            .checked_mul(line.quantity)
            .and_then(|amount| total.checked_add(amount))
            .map_err(|_| OrderError::Total)?;
    }
    if (1..=TOTAL_MINOR_MAX).contains(&total.minor_units) { Ok(total) } else { Err(OrderError::Total) }
}
