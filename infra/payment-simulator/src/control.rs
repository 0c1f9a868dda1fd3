//! The routes under `/_control`: what tests and operators turn, not part of any real gateway.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use crate::{faults::Faults, gateway::Gateway, payment_intent::Outcome};

pub(crate) fn routes(gateway: Arc<Gateway>) -> Router {
    Router::new()
        .route("/_control", get(show).put(replace).delete(reset))
        .route("/_control/ledger", get(ledger))
        .with_state(gateway)
}

async fn show(State(gateway): State<Arc<Gateway>>) -> Json<Value> {
    Json(state(&gateway))
}

/// Replaces all faults; those that the body leaves out are off.
async fn replace(State(gateway): State<Arc<Gateway>>, body: Bytes) -> Response {
    // As an object first, because serde would take an array for a struct, too.
    let parsed = serde_json::from_slice(&body).map(Value::Object).and_then(serde_json::from_value);
    let faults: Faults = match parsed {
        Ok(faults) => faults,
        Err(error) => return wrong(&[error.to_string()]),
    };
    let mistakes = faults.mistakes();
    if !mistakes.is_empty() {
        return wrong(&mistakes);
    }
    gateway.set_faults(faults);
    Json(state(&gateway)).into_response()
}

async fn reset(State(gateway): State<Arc<Gateway>>) -> Json<Value> {
    gateway.set_faults(Faults::default());
    Json(state(&gateway))
}

fn wrong(mistakes: &[String]) -> Response {
    (StatusCode::BAD_REQUEST, Json(json!({ "mistakes": mistakes }))).into_response()
}

fn state(gateway: &Gateway) -> Value {
    let (payment_intents, refunds) = {
        let ledger = gateway.ledger();
        (ledger.intents().len(), ledger.refunds().len())
    };
    json!({
        "faults": gateway.faults(),
        "in_flight": gateway.counts().in_flight(),
        "counts": gateway.counts().snapshot(),
        "ledger": {"payment_intents": payment_intents, "refunds": refunds},
    })
}

/// What happened to money, oldest first; amounts are in the smallest unit of the currency.
async fn ledger(State(gateway): State<Arc<Gateway>>) -> Json<Value> {
    // Only the pointers are copied under the lock.
    let (intents, refunds) = {
        let ledger = gateway.ledger();
        (ledger.intents().to_vec(), ledger.refunds().to_vec())
    };
    let time = |at: time::OffsetDateTime| at.format(&Rfc3339).expect("a time of our own clock has a four-digit year");
    let (mut charges, mut declines) = (Vec::new(), Vec::new());
    for intent in &intents {
        let mut row = json!({
            "payment_intent": intent.id,
            "charge": intent.charge,
            "order_id": intent.order_id(),
            "amount": intent.amount,
            "currency": intent.currency,
            "created_at": time(intent.created_at),
        });
        match &intent.outcome {
            Outcome::Succeeded => charges.push(row),
            Outcome::Declined(decline) => {
                row["code"] = decline.code.as_str().into();
                row["decline_code"] = decline.decline_code.as_deref().into();
                declines.push(row);
            }
            Outcome::Unconfirmed => {}
        }
    }
    let refunds: Vec<_> = refunds
        .iter()
        .map(|refund| {
            json!({
                "refund": refund.id,
                "payment_intent": refund.payment_intent,
                "charge": refund.charge,
                "order_id": refund.order_id,
                "amount": refund.amount,
                "currency": refund.currency,
                "created_at": time(refund.created_at),
            })
        })
        .collect();
    Json(json!({"charges": charges, "declines": declines, "refunds": refunds}))
}
