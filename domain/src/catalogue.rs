//! What the stored events are, for those who read them without this crate: a JSON Schema of each version's data and of the
//! envelope around it, derived from the types that read and write them. The crate `catalogue` makes documents of it.
//!
//! A schema says what a stored event always was and will be: its fields and what the types of their values guarantee. It leaves
//! out the limits that `decide` sets to commands (lines of an order, lengths of texts), because those may be moved at any time
//! without an event having another shape.

use cqrs_es::Aggregate;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde_json::Value;

use crate::{
    EventPayload, NotificationId, OrderId, Sku, envelope::Document, notification::Notification, order::Order, payment::Payment,
    stock::Stock, upcast::older_events,
};

/// A type's schema, as the generator is set to write schemas.
pub type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// The data of one version of one event.
#[derive(Clone, Copy, Debug)]
pub struct EventSchema {
    /// The CloudEvents `type`, for example `contrail.order.placed.v1`.
    pub event_type: &'static str,
    /// The schema, complete in itself.
    pub document: SchemaOf,
    /// A reference to the schema, which the generator keeps among its definitions.
    pub reference: SchemaOf,
}

impl EventSchema {
    pub(crate) const fn of<T: JsonSchema>(event_type: &'static str) -> Self {
        Self { event_type, document: SchemaGenerator::root_schema_for::<T>, reference: SchemaGenerator::subschema_for::<T> }
    }
}

/// An event that is not written any more.
#[derive(Clone, Copy, Debug)]
pub struct OlderEvent {
    /// What was stored.
    pub schema: EventSchema,
    /// The event type of today that it is read as.
    pub read_as: &'static str,
}

/// All events of one kind of aggregate.
#[derive(Clone, Debug)]
pub struct AggregateEvents {
    /// The CloudEvents attribute `aggregatetype`, and the second token of the subject.
    pub aggregate_type: &'static str,
    /// What becomes of such an aggregate, in a few words.
    pub summary: &'static str,
    /// What its id is called, the third token of the subject.
    pub id_name: &'static str,
    /// A reference to the id's schema.
    pub id: SchemaOf,
    /// What is written today.
    pub events: &'static [EventSchema],
    /// What was written once and is still in the log.
    pub older_events: Vec<OlderEvent>,
}

impl AggregateEvents {
    fn of<A: Aggregate<Event: EventPayload>, Id: JsonSchema>(id_name: &'static str, summary: &'static str) -> Self {
        let is_ours = |read_as: &str| A::Event::EVENT_TYPES.contains(&read_as);
        Self {
            aggregate_type: A::TYPE,
            summary,
            id_name,
            id: SchemaGenerator::subschema_for::<Id>,
            events: A::Event::EVENT_SCHEMAS,
            older_events: older_events().into_iter().filter(|older| is_ours(older.read_as)).collect(),
        }
    }
}

/// The events of every aggregate.
pub fn aggregates() -> [AggregateEvents; 4] {
    [
        AggregateEvents::of::<Order, OrderId>("order_id", "an order, from the checkout to the doorstep"),
        AggregateEvents::of::<Stock, Sku>(
            "sku",
            "the stock of one SKU: what is on the shelf, and how much of it is promised to orders",
        ),
        AggregateEvents::of::<Payment, OrderId>(
            "order_id",
            "the payment of one order: what the gateway took, refused, or gave back",
        ),
        AggregateEvents::of::<Notification, NotificationId>("notification_id", "one message to one customer over one channel"),
    ]
}

/// A reference to the schema of the document that an event is stored as, whatever its data.
pub fn envelope(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<Document<'_, Value>>()
}
