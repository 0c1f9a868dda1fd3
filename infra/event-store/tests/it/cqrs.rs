use std::collections::HashMap;

use cqrs_es::{AggregateError, CqrsFramework, EventStore};
use domain::{
    order::{Order, OrderCommand, OrderError},
    payment::{Payment, PaymentCommand, RecordDecline},
};

use crate::{NOW, log, order_id};

#[tokio::test]
async fn an_aggregate_works_with_the_cqrs_framework() {
    let (_server, store) = log().await;
    let framework = CqrsFramework::<Payment, _>::new(store.clone(), vec![], ());
    let id = order_id(1).to_string();
    let decline = PaymentCommand::RecordDecline(RecordDecline { code: "c".to_owned(), message: "m".to_owned(), declined_at: NOW });
    let metadata = HashMap::from([("correlation_id".to_owned(), "story-9".to_owned())]);
    framework.execute_with_metadata(&id, decline.clone(), metadata).await.unwrap();
    framework.execute(&id, decline).await.unwrap();
    let events = EventStore::<Payment>::load_events(&store, &id).await.unwrap();
    assert_eq!(events.len(), 1, "declining twice changes nothing");
    assert_eq!(events[0].metadata["correlation_id"], "story-9");
    assert_eq!(events[0].metadata["position"], "1");
}

#[tokio::test]
async fn a_rejection_reaches_the_caller_of_the_framework() {
    let (_server, store) = log().await;
    let framework = CqrsFramework::<Order, _>::new(store, vec![], ());
    let deliver = OrderCommand::Deliver(domain::order::Deliver { delivered_at: NOW, request: None });
    let rejected = framework.execute(&order_id(1).to_string(), deliver).await;
    assert!(matches!(rejected, Err(AggregateError::UserError(OrderError::NotFound))));
}
