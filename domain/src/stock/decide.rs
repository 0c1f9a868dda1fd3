//! What a SKU's stock answers to a command: events, or a rejection.

use std::collections::BTreeSet;

use super::{
    Adjust, Allocation, ON_HAND_MAX, Receive, Release, Reserve, Ship, Stock, StockAdjusted, StockCommand, StockError, StockEvent,
    StockReceived, StockReleased, StockReserved, StockShipped, TEXT_CHARS_MAX,
};
use crate::{OrderId, Request, RequestMemory};

/// Decides `command` on `stock`.
pub fn decide(stock: &Stock, command: StockCommand) -> Result<Vec<StockEvent>, StockError> {
    match command {
        StockCommand::Receive(command) => receive(stock, command),
        StockCommand::Adjust(command) => adjust(stock, command),
        StockCommand::Reserve(command) => reserve(stock, command),
        StockCommand::Release(command) => Ok(release(stock, &command)),
        StockCommand::Ship(command) => Ok(ship(stock, &command)),
    }
}

fn receive(stock: &Stock, command: Receive) -> Result<Vec<StockEvent>, StockError> {
    if is_repeated(stock, command.request.as_ref())? {
        return Ok(vec![]);
    }
    check_text("reference", &command.reference)?;
    if command.quantity == 0 {
        return Err(StockError::Zero { field: "quantity" });
    }
    if stock.on_hand.saturating_add(i64::from(command.quantity)) > ON_HAND_MAX {
        return Err(StockError::TooMany);
    }
    Ok(vec![
        StockReceived {
            quantity: command.quantity,
            reference: command.reference,
            received_at: command.received_at,
            request: command.request,
        }
        .into(),
    ])
}

fn adjust(stock: &Stock, command: Adjust) -> Result<Vec<StockEvent>, StockError> {
    if is_repeated(stock, command.request.as_ref())? {
        return Ok(vec![]);
    }
    check_text("reason", &command.reason)?;
    check_text("reference", &command.reference)?;
    if command.delta == 0 {
        return Err(StockError::Zero { field: "delta" });
    }
    let on_hand = stock.on_hand.saturating_add(command.delta);
    if on_hand > ON_HAND_MAX {
        return Err(StockError::TooMany);
    }
    if on_hand < stock.reserved {
        return Err(StockError::BelowReserved { on_hand, reserved: stock.reserved });
    }
    Ok(vec![
        StockAdjusted {
            delta: command.delta,
            reason: command.reason,
            reference: command.reference,
            adjusted_at: command.adjusted_at,
            request: command.request,
        }
        .into(),
    ])
}

fn reserve(stock: &Stock, command: Reserve) -> Result<Vec<StockEvent>, StockError> {
    let mut seen = BTreeSet::new();
    let mut requested: u64 = 0;
    let mut allocations = command.allocations;
    // What an order already holds is not promised to it twice, nor is one order served twice in a batch.
    allocations.retain(|allocation| {
        allocation.quantity > 0 && !stock.open.contains_key(&allocation.order_id) && seen.insert(allocation.order_id)
    });
    for allocation in &allocations {
        requested = requested.saturating_add(allocation.quantity);
    }
    if allocations.is_empty() {
        return Ok(vec![]);
    }
    if i64::try_from(requested).map_or(true, |requested| requested > stock.available()) {
        return Err(StockError::Insufficient { requested, available: stock.available() });
    }
    Ok(vec![StockReserved { allocations, reserved_at: command.reserved_at }.into()])
}

fn release(stock: &Stock, command: &Release) -> Vec<StockEvent> {
    let allocations = open_allocations(stock, &command.order_ids);
    if allocations.is_empty() {
        return vec![];
    }
    vec![StockReleased { allocations, released_at: command.released_at }.into()]
}

fn ship(stock: &Stock, command: &Ship) -> Vec<StockEvent> {
    let allocations = open_allocations(stock, &command.order_ids);
    if allocations.is_empty() {
        return vec![];
    }
    vec![StockShipped { allocations, shipped_at: command.shipped_at }.into()]
}

/// What these orders still have a promise of, each once.
fn open_allocations(stock: &Stock, order_ids: &[OrderId]) -> Vec<Allocation> {
    let order_ids: BTreeSet<_> = order_ids.iter().copied().collect();
    order_ids
        .into_iter()
        .filter_map(|order_id| {
            let quantity = u64::try_from(*stock.open.get(&order_id)?).ok()?;
            Some(Allocation { order_id, quantity })
        })
        .collect()
}

fn is_repeated(stock: &Stock, request: Option<&Request>) -> Result<bool, StockError> {
    match request.map_or(RequestMemory::New, |request| stock.requests.look_up(request)) {
        RequestMemory::New => Ok(false),
        RequestMemory::Repeated => Ok(true),
        RequestMemory::KeyReused => Err(StockError::KeyReused),
    }
}

fn check_text(field: &'static str, text: &str) -> Result<(), StockError> {
    if (1..=TEXT_CHARS_MAX).contains(&text.chars().count()) { Ok(()) } else { Err(StockError::Text { field }) }
}
