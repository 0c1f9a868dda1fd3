//! Objects that can be fetched again by their id alone (the Global Object Identification specification).

use async_graphql::{ID, Interface};
use uuid::Uuid;

use super::audit::AuditEvent;
use super::order::Order;
use super::stock::StockItem;
use crate::opaque;

/// An object with an id that is unique among all objects; `node` finds it again.
#[derive(Interface)]
#[graphql(field(name = "id", ty = "ID", desc = "The object's id among all objects. Opaque: hand it back as it is."))]
#[expect(clippy::large_enum_variant, reason = "one value per request, and the Interface macro takes no boxes")]
pub(super) enum Node {
    Order(Order),
    StockItem(StockItem),
    AuditEvent(AuditEvent),
}

/// What a node id says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum NodeId {
    Order(Uuid),
    StockItem(String),
    AuditEvent(i64),
}

impl NodeId {
    /// Reads a node id; `None` for a text that is none.
    pub(super) fn parse(id: &str) -> Option<Self> {
        let (kind, value) = opaque::decode(id)?;
        match kind.as_str() {
            "Order" => value.parse().ok().map(Self::Order),
            "StockItem" => Some(Self::StockItem(value)),
            "AuditEvent" => value.parse().ok().map(Self::AuditEvent),
            _ => None,
        }
    }
}

/// The node id of an order.
pub(super) fn order_id(order_id: &str) -> ID {
    ID(opaque::encode("Order", order_id))
}

/// The node id of a SKU's stock.
pub(super) fn stock_item_id(sku: &str) -> ID {
    ID(opaque::encode("StockItem", sku))
}

/// The node id of an event.
pub(super) fn audit_event_id(position: i64) -> ID {
    ID(opaque::encode("AuditEvent", &position.to_string()))
}

/// Which order is meant by an order id or by a node id; `None` if it can be none.
pub(super) fn parse_order_id(id: &str) -> Option<Uuid> {
    match Uuid::try_parse(id) {
        Ok(order_id) => Some(order_id),
        Err(_) => match NodeId::parse(id)? {
            NodeId::Order(order_id) => Some(order_id),
            NodeId::StockItem(_) | NodeId::AuditEvent(_) => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_is_meant_by_its_own_id_and_by_its_node_id() {
        let id = Uuid::from_u128(7);
        assert_eq!(parse_order_id(&id.to_string()), Some(id));
        assert_eq!(parse_order_id(&order_id(&id.to_string())), Some(id));
        for other in ["", "order", &stock_item_id("TEA-1"), &audit_event_id(7)] {
            assert_eq!(parse_order_id(other), None, "{other}");
        }
    }

    #[test]
    fn node_ids_read_back() {
        assert_eq!(NodeId::parse(&stock_item_id("TEA-1")), Some(NodeId::StockItem("TEA-1".to_owned())));
        assert_eq!(NodeId::parse(&audit_event_id(7)), Some(NodeId::AuditEvent(7)));
        assert_eq!(NodeId::parse(&opaque::encode("Projection", "orders")), None);
    }
}
