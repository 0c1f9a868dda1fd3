//! Laws that hold for every history, checked on random ones.

use domain::{
    Currency, Money, OrderId,
    allocation::{WaitingOrder, allocate},
    order::{self, Cancel, Cause, Confirm, Deliver, Line, Order, OrderCommand, OrderPlaced, Place, RecordReservation, Reject},
    payment::{self, Payment, PaymentCommand, RecordCapture, RecordDecline, RecordGivingUp, RecordRefund},
    stock::{self, Adjust, Allocation, Receive, Release, Reserve, Ship, Stock, StockCommand, StockEvent},
};
use proptest::{collection::vec, prelude::*};

use crate::given::{
    LATER, NOW, adjusted, allocation, cancelled, confirmed, customer, delivered, euros, line, order_id, placed, received, rejected,
    request, reserved, shipped, stock_released, stock_reserved, stock_shipped,
};

fn any_order_id() -> impl Strategy<Value = OrderId> {
    (0..6_u128).prop_map(order_id)
}

fn any_stock_command() -> impl Strategy<Value = StockCommand> {
    let allocations = vec((any_order_id(), 0..40_u64), 0..4)
        .prop_map(|allocations| allocations.into_iter().map(|(order_id, quantity)| Allocation { order_id, quantity }).collect());
    prop_oneof![
        (any::<u128>(), prop_oneof![0..50_u32, Just(u32::MAX)]).prop_map(|(key, quantity)| {
            let (reference, request) = ("r".to_owned(), Some(request(key)));
            StockCommand::Receive(Receive { quantity, reference, received_at: NOW, request })
        }),
        (any::<u128>(), prop_oneof![-50..50_i64, Just(i64::MIN), Just(i64::MAX)]).prop_map(|(key, delta)| {
            let (reason, reference, request) = ("r".to_owned(), "r".to_owned(), Some(request(key)));
            StockCommand::Adjust(Adjust { delta, reason, reference, adjusted_at: NOW, request })
        }),
        allocations.prop_map(|allocations| StockCommand::Reserve(Reserve { allocations, reserved_at: NOW })),
        vec(any_order_id(), 0..4).prop_map(|order_ids| StockCommand::Release(Release { order_ids, released_at: NOW })),
        vec(any_order_id(), 0..4).prop_map(|order_ids| StockCommand::Ship(Ship { order_ids, shipped_at: NOW })),
    ]
}

fn any_order_command() -> impl Strategy<Value = OrderCommand> {
    let key = 0..8_u128;
    prop_oneof![
        key.clone().prop_map(|key| OrderCommand::Place(Place {
            customer: customer(),
            currency: "EUR".parse().unwrap(),
            lines: vec![line("TEA-1", 1, 100)],
            payment_method: "pm".to_owned(),
            placed_at: NOW,
            request: request(key),
        })),
        Just(OrderCommand::RecordReservation(RecordReservation { reserved_at: NOW, payment_due_at: LATER })),
        Just(OrderCommand::Reject(Reject { shortages: rejected().shortages, rejected_at: NOW })),
        (0..2).prop_map(|payment| OrderCommand::Confirm(Confirm { payment_intent_id: format!("pi_{payment}"), confirmed_at: NOW })),
        proptest::option::of(key.clone()).prop_map(|key| OrderCommand::Cancel(Cancel {
            cause: Cause::Operator,
            reason: "r".to_owned(),
            cancelled_at: NOW,
            request: key.map(request),
        })),
        (proptest::option::of(key.clone()), 0..2).prop_map(|(key, number)| OrderCommand::Ship(order::Ship {
            carrier: "DHL".to_owned(),
            tracking_number: format!("{number}"),
            shipped_at: NOW,
            request: key.map(request),
        })),
        proptest::option::of(key).prop_map(|key| OrderCommand::Deliver(Deliver { delivered_at: NOW, request: key.map(request) })),
    ]
}

fn any_payment_command() -> impl Strategy<Value = PaymentCommand> {
    prop_oneof![
        (0..2, -1..3_i64).prop_map(|(payment, amount)| PaymentCommand::RecordCapture(RecordCapture {
            payment_intent_id: format!("pi_{payment}"),
            amount: euros(amount),
            captured_at: NOW,
        })),
        Just(PaymentCommand::RecordDecline(RecordDecline { code: "c".to_owned(), message: "m".to_owned(), declined_at: NOW })),
        (0..2)
            .prop_map(|refund| PaymentCommand::RecordRefund(RecordRefund { refund_id: format!("re_{refund}"), refunded_at: NOW })),
        (1..4_u64).prop_map(|position| {
            PaymentCommand::RecordGivingUp(RecordGivingUp { position, reason: "r".to_owned(), given_up_at: NOW })
        }),
    ]
}

/// Events with numbers that no command would ever lead to.
fn any_stock_event() -> impl Strategy<Value = StockEvent> {
    let allocations = || vec((0..6_u128, any::<u64>()).prop_map(|(order, quantity)| allocation(order, quantity)), 0..4);
    prop_oneof![
        any::<u32>().prop_map(|quantity| received(quantity).into()),
        any::<i64>().prop_map(|delta| adjusted(delta).into()),
        allocations().prop_map(|allocations| stock_reserved(&allocations)),
        allocations().prop_map(|allocations| stock_released(&allocations)),
        allocations().prop_map(|allocations| stock_shipped(&allocations)),
    ]
}

proptest! {
    #[test]
    fn stock_is_never_oversold_and_deciding_twice_changes_nothing(commands in vec(any_stock_command(), 1..60)) {
        let mut state = Stock::default();
        for command in commands {
            let Ok(events) = stock::decide(&state, command.clone()) else { continue };
            for event in &events {
                state.evolve(event);
            }
            prop_assert!(0 <= state.reserved && state.reserved <= state.on_hand, "{state:?}");
            prop_assert_eq!(state.open.values().sum::<i64>(), state.reserved);
            prop_assert_eq!(stock::decide(&state, command), Ok(vec![]));
        }
    }

    #[test]
    fn whatever_an_order_accepted_changes_nothing_a_second_time(commands in vec(any_order_command(), 1..30)) {
        let mut state = Order::default();
        for command in commands {
            let Ok(events) = order::decide(&state, command.clone()) else { continue };
            for event in &events {
                state.evolve(event);
            }
            prop_assert_eq!(order::decide(&state, command), Ok(vec![]));
        }
    }

    #[test]
    fn whatever_a_payment_accepted_changes_nothing_a_second_time(commands in vec(any_payment_command(), 1..12)) {
        let mut state = Payment::default();
        for command in commands {
            let Ok(events) = payment::decide(&state, command.clone()) else { continue };
            for event in &events {
                state.evolve(event);
            }
            prop_assert_eq!(payment::decide(&state, command), Ok(vec![]));
        }
    }

    #[test]
    fn any_history_of_stock_gives_a_state(events in vec(any_stock_event(), 0..40)) {
        let mut state = Stock::default();
        for event in &events {
                state.evolve(event);
            }
        let _ = state.available();
    }

    #[test]
    fn any_history_of_an_order_gives_a_state(picks in vec(0..7_usize, 0..20)) {
        let all = [
            placed().into(), reserved().into(), rejected().into(), confirmed().into(), cancelled().into(),
            shipped().into(), delivered().into(),
        ];
        let mut state = Order::default();
        for pick in picks {
            state.evolve(&all[pick]);
        }
    }

    #[test]
    fn a_total_is_exact_or_refused(lines in vec((any::<u32>(), any::<i64>()), 0..6)) {
        let lines: Vec<Line> = lines.into_iter().map(|(quantity, price)| line("TEA-1", quantity, price)).collect();
        let exact: i128 = lines.iter().map(|line| i128::from(line.quantity) * i128::from(line.unit_price_minor)).sum();
        let currency: Currency = "EUR".parse().unwrap();
        let place = Place {
            customer: customer(), currency, lines, payment_method: "pm".to_owned(), placed_at: NOW, request: request(1),
        };
        if let Ok(events) = order::decide(&Order::default(), OrderCommand::Place(place)) {
            let [order::OrderEvent::Placed(OrderPlaced { total_minor, .. })] = &events[..] else { panic!("{events:?}") };
            prop_assert_eq!(i128::from(*total_minor), exact);
        }
    }

    #[test]
    fn allocation_serves_whole_orders_within_what_is_available(
        on_hand in vec(0..60_i64, 3),
        orders in vec(vec((0..4_usize, 1..20_u64), 1..4), 0..20),
    ) {
        let skus = ["A", "B", "C", "D"].map(|sku| sku.parse::<domain::Sku>().unwrap());
        let stocks: Vec<Stock> = on_hand.iter().map(|on_hand| Stock { on_hand: *on_hand, ..Stock::default() }).collect();
        let orders: Vec<WaitingOrder> = (0..).zip(orders).map(|(number, lines)| WaitingOrder {
            order_id: order_id(number),
            quantities: lines.into_iter().map(|(sku, quantity)| (skus[sku].clone(), quantity)).collect(),
        }).collect();
        let find = |sku: &domain::Sku| skus.iter().position(|known| known == sku).and_then(|index| stocks.get(index));
        let allocations = allocate(&orders, find);
        prop_assert_eq!(allocations.reserved.len() + allocations.rejected.len(), orders.len());
        for (sku, allocations) in &allocations.reservations {
            let promised: u64 = allocations.iter().map(|allocation| allocation.quantity).sum();
            prop_assert!(i64::try_from(promised).unwrap() <= find(sku).map_or(0, Stock::available));
        }
        for order in orders.iter().filter(|order| allocations.reserved.contains(&order.order_id)) {
            for (sku, quantity) in &order.quantities {
                let got = allocations.reservations[sku].iter().find(|allocation| allocation.order_id == order.order_id);
                prop_assert_eq!(got.map(|allocation| allocation.quantity), Some(*quantity));
            }
        }
    }

    #[test]
    fn money_is_shown_with_every_digit(minor_units in any::<i64>()) {
        let shown = Money::new(minor_units, "EUR".parse().unwrap()).to_string();
        let digits: String = shown.chars().filter(|c| c.is_ascii_digit() || *c == '-').collect();
        prop_assert_eq!(digits.parse::<i64>().unwrap(), minor_units);
    }
}
