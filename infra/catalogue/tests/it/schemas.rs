//! A schema takes what is stored, refuses what is not, and agrees with our own reader and parsers.

use domain::{
    Currency, CustomerId, EventPayload, OrderId, Sku, notification::NotificationEvent, order::OrderEvent, payment::PaymentEvent,
    stock::StockEvent,
};
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::{
    any_event::{EVENTS_DRAWN, any_event},
    validator::{Validator, golden, golden_types},
};

/// Whether our own reader takes `data`.
fn is_read(event_type: &str, data: &Value) -> bool {
    let data = data.to_string();
    OrderEvent::from_data(event_type, &data).is_ok()
        || StockEvent::from_data(event_type, &data).is_ok()
        || PaymentEvent::from_data(event_type, &data).is_ok()
        || NotificationEvent::from_data(event_type, &data).is_ok()
}

/// Each golden file's data, with its type and its schema.
fn golden_data() -> impl Iterator<Item = (String, Value, Validator)> {
    golden_types().into_iter().map(|event_type| {
        let (data, schema) = (golden(&event_type)["data"].take(), Validator::of_data(&event_type));
        (event_type, data, schema)
    })
}

fn with(data: &Value, field: &str, value: Value) -> Value {
    let mut data = data.clone();
    data[field] = value;
    data
}

fn without(data: &Value, field: &str) -> Value {
    let mut data = data.clone();
    data.as_object_mut().unwrap().remove(field);
    data
}

#[test]
fn every_golden_file_is_what_its_schema_says() {
    for (event_type, data, schema) in golden_data() {
        schema.check(&data).unwrap_or_else(|why| panic!("{event_type}: {why}"));
    }
}

#[test]
fn a_field_may_be_missing_only_if_our_reader_can_do_without() {
    let mut optional = Vec::new();
    for (event_type, data, schema) in golden_data() {
        for field in data.as_object().unwrap().keys() {
            let data = without(&data, field);
            assert_eq!(schema.takes(&data), is_read(&event_type, &data), "{event_type} without {field}");
            if schema.takes(&data) {
                optional.push(format!("{event_type} {field}"));
            }
        }
    }
    let expected = [
        "contrail.order.cancelled.v1 request",
        "contrail.order.delivered.v1 request",
        "contrail.order.shipped.v1 request",
        "contrail.stock.adjusted.v1 request",
        "contrail.stock.received.v0 delivery_note",
        "contrail.stock.received.v1 request",
    ];
    assert_eq!(optional, expected);
}

#[test]
fn a_value_of_another_type_is_refused_as_our_reader_refuses_it() {
    for (event_type, data, schema) in golden_data() {
        for (field, value) in data.as_object().unwrap() {
            for wrong in [json!(true), json!({}), json!("ü"), json!(-1.5), json!(["ü"])] {
                let is_text = value.is_string() && wrong.is_string();
                let data = with(&data, field, wrong);
                if !is_text {
                    assert!(!schema.takes(&data), "{event_type}: {data}");
                }
                assert_eq!(schema.takes(&data), is_read(&event_type, &data), "{event_type}: {data}");
            }
        }
    }
}

#[test]
fn an_optional_field_is_never_null() {
    let cancelled = golden("contrail.order.cancelled.v1")["data"].take();
    assert!(!Validator::of_data("contrail.order.cancelled.v1").takes(&with(&cancelled, "request", Value::Null)));
    let received = golden("contrail.stock.received.v0")["data"].take();
    assert!(!Validator::of_data("contrail.stock.received.v0").takes(&with(&received, "delivery_note", Value::Null)));
}

#[test]
fn a_time_that_is_none_is_refused() {
    let mut times = 0;
    for (event_type, data, schema) in golden_data() {
        for (field, _) in data.as_object().unwrap().iter().filter(|(field, _)| *field == "at" || field.ends_with("_at")) {
            times += 1;
            for wrong in ["yesterday", "2026-11-20", "2026-11-20 12:00:00", "2026-13-20T12:00:00Z", "2026-11-20T12:00:00"] {
                let data = with(&data, field, json!(wrong));
                assert!(!schema.takes(&data) && !is_read(&event_type, &data), "{event_type}: {data}");
            }
        }
    }
    // `order.stock_reserved` has two.
    assert_eq!(times, golden_types().len() + 1);
}

#[test]
fn a_field_that_nobody_knows_is_no_reason_to_refuse_an_event() {
    for (event_type, data, schema) in golden_data() {
        let data = with(&data, "added_later", json!({ "by": "somebody" }));
        assert!(schema.takes(&data) && is_read(&event_type, &data), "{event_type}");
    }
}

#[test]
fn an_order_with_a_line_that_is_none_is_refused() {
    let schema = Validator::of_data("contrail.order.placed.v1");
    let placed = golden("contrail.order.placed.v1")["data"].take();
    for (field, wrong) in [("sku", json!("a.b")), ("sku", json!("")), ("quantity", json!(-1)), ("unit_price_minor", json!("1250"))]
    {
        let mut placed = placed.clone();
        placed["lines"][1][field] = wrong;
        assert!(!schema.takes(&placed), "{placed}");
    }
    for (pointer, wrong) in [("/customer/id", json!("c 42")), ("/currency", json!("eur")), ("/request/id", json!("1"))] {
        let mut placed = placed.clone();
        *placed.pointer_mut(pointer).unwrap() = wrong;
        assert!(!schema.takes(&placed), "{placed}");
    }
}

#[test]
fn whatever_an_event_holds_is_what_its_schema_says() {
    let schemas: Vec<_> = EVENTS_DRAWN.iter().map(|event_type| (*event_type, Validator::of_data(event_type))).collect();
    proptest!(|((event_type, data) in any_event())| {
        let (_, schema) = schemas.iter().find(|(known, _)| *known == event_type).unwrap();
        prop_assert_eq!(schema.check(&data), Ok(()));
    });
}

#[test]
fn the_schema_of_an_id_takes_what_its_parser_takes() {
    let schema = |name: &str| Validator::new("asyncapi.json", &format!("/components/schemas/{name}"));
    let (sku, customer, order, currency) = (schema("Sku"), schema("CustomerId"), schema("OrderId"), schema("Currency"));
    let text = || prop_oneof!["[A-Za-z0-9_-]{0,70}", "[!-~]{0,140}", "\\PC{0,3}", "[ -~]{0,5}", "[A-Z]{3}"];
    let uuid =
        || prop_oneof!["[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", "[0-9a-fA-F-]{30,36}", "[0-9a-f]{32}"];
    proptest!(|(text in text(), uuid in uuid())| {
        prop_assert_eq!(sku.takes(&json!(text)), text.parse::<Sku>().is_ok());
        prop_assert_eq!(customer.takes(&json!(text)), text.parse::<CustomerId>().is_ok());
        prop_assert_eq!(order.takes(&json!(uuid)), uuid.parse::<OrderId>().is_ok());
        // ISO 4217 gets new codes, so the schema takes more than today's.
        prop_assert!(currency.takes(&json!(text)) || text.parse::<Currency>().is_err());
    });
}
