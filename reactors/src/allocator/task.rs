//! One event that the allocator acts on.

use domain::{
    DecodeError, OrderId, Sku,
    envelope::Metadata,
    order::{Order, OrderEvent, OrderStatus},
};
use event_store::{Expected, Loaded, STREAM, WorkItem};

use telemetry::trace::Span;

use super::NAME;
use crate::dead_letters::chain;

pub(crate) struct Task {
    pub(crate) item: WorkItem,
    pub(crate) cause: Metadata,
    /// Ends when the event has come to its end here.
    pub(crate) span: Span,
    pub(crate) order_id: OrderId,
    pub(crate) kind: TaskKind,
    /// The order as it was loaded, or as the event alone tells.
    pub(crate) order: Loaded<Order>,
    /// Whether `order` has to be loaded before it is decided on.
    pub(crate) must_load: bool,
    /// Whether the log has to be asked first whether `order` is still all there is.
    pub(crate) must_check: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum TaskKind {
    Reserve,
    Release,
    Ship,
}

/// What a delivered event comes to.
pub(crate) enum Reading {
    Task(Box<Task>),
    /// Nothing follows from it here.
    Nothing(WorkItem),
    /// This build cannot act on it, ever.
    Unreadable {
        item: WorkItem,
        error_chain: Vec<String>,
    },
}

impl Task {
    /// What `item` comes to, given what is `known` of its order. What nobody has to ask the log for is not asked: the state before the
    /// event and the event make the state after it.
    pub(crate) fn read(item: WorkItem, known: impl FnOnce(OrderId) -> Option<Loaded<Order>>) -> Reading {
        let event = match item.event() {
            Ok(event) => event,
            Err(error) => return Reading::Unreadable { item, error_chain: chain(&error) },
        };
        let kind = match event.metadata.event_type.as_str() {
            "contrail.order.placed.v1" => TaskKind::Reserve,
            "contrail.order.cancelled.v1" => TaskKind::Release,
            "contrail.order.shipped.v1" => TaskKind::Ship,
            known if domain::is_known(known) => return Reading::Nothing(item),
            unknown => {
                let error_chain = chain(&DecodeError::UnknownType { event_type: unknown.to_owned() });
                return Reading::Unreadable { item, error_chain };
            }
        };
        let order_id = match event.metadata.aggregate_id.parse::<OrderId>() {
            Ok(order_id) => order_id,
            Err(error) => return Reading::Unreadable { item, error_chain: chain(&error) },
        };
        if !item.is_in_its_place(&event) {
            let error_chain = vec![format!("this event is not on the subject of order {order_id}")];
            return Reading::Unreadable { item, error_chain };
        }
        let change = match event.decode::<OrderEvent>() {
            Ok(change) => change,
            Err(error) => return Reading::Unreadable { item, error_chain: chain(&error) },
        };
        let mut order = known(order_id).unwrap_or_default();
        if order.version + 1 == event.metadata.version {
            order.advance(&[change], item.position);
        }
        // A placed order that comes again has most likely moved on since. Nothing that follows would change what one that is
        // cancelled or shipped needs here.
        let may_have_moved = kind == TaskKind::Reserve && item.deliveries > 1 && order.version == event.metadata.version;
        // An event whose version is not its place would be passed over here; loading the order tells what is wrong with it.
        let is_as_told = match kind {
            TaskKind::Reserve => order.aggregate.status.is_some(),
            TaskKind::Release => order.aggregate.status == Some(OrderStatus::Cancelled),
            TaskKind::Ship => matches!(order.aggregate.status, Some(OrderStatus::Shipped | OrderStatus::Delivered)),
        };
        let must_load = may_have_moved || order.version < event.metadata.version || !is_as_told;
        let span = Span::process(STREAM, NAME, event.metadata.traceparent.as_deref())
            .with_display("messaging.message.id", event.metadata.event_id)
            .with_display("contrail.event.type", &event.metadata.event_type)
            .with_display("contrail.event.position", item.position);
        Reading::Task(Box::new(Self { item, cause: event.metadata, span, order_id, kind, order, must_load, must_check: false }))
    }

    pub(crate) fn expected(&self) -> Expected {
        self.order.expected()
    }

    /// Whether `sku` is among the order's lines, as far as it is loaded.
    pub(crate) fn needs(&self, sku: &Sku) -> bool {
        let placement = self.order.aggregate.placement.as_ref();
        placement.is_some_and(|placement| placement.lines.iter().any(|line| line.sku == *sku))
    }
}
