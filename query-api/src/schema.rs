//! The GraphQL schema: types, fields and their resolvers. A stored view is never an API type; each is converted here, by hand.
//!
//! Docstrings of types and fields are their descriptions in `query-api/schema.graphql`, for callers to read.

mod query;
mod subscription;

mod order;
mod stock;

mod audit;
mod projection;

mod arguments;
mod money;
mod node;
mod scalars;

use std::time::Duration;

use async_graphql::connection::{Connection, DefaultConnectionName, DefaultEdgeName, DisableNodesField, EmptyFields};
use async_graphql::dataloader::DataLoader;
use async_graphql::{EmptyMutation, ID, SDLExportOptions, SchemaBuilder};

pub use query::Query;
pub use subscription::Subscription;

use crate::database::Database;
use crate::limits::{FIELD_DIRECTIVES_MAX, QUERY_COMPLEXITY_MAX, QUERY_DEPTH_MAX, QUERY_RECURSION_MAX};
use crate::live::Live;
use crate::positions::Positions;
use crate::reads::{Histories, OrdersById};
use audit::AuditEvent;
use order::Order;
use stock::StockItem;

/// The schema, ready to execute queries.
pub type Schema = async_graphql::Schema<Query, EmptyMutation, Subscription>;

/// A Relay connection whose cursors are texts.
type Listed<Node> = Connection<String, Node, EmptyFields, EmptyFields, DefaultConnectionName, DefaultEdgeName, DisableNodesField>;

/// What resolvers read from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// The read models.
    pub database: Database,
    /// How far they are.
    pub positions: Positions,
    /// How long `minPosition` waits.
    pub min_position_wait: Duration,
    /// Who listens to what happens; [`crate::live::follow`] tells them.
    pub live: Live,
}

/// The schema over these sources. Must be called on a tokio runtime.
pub fn build(sources: Sources) -> Schema {
    let histories = DataLoader::new(Histories { database: sources.database.clone() }, tokio::spawn);
    let orders_by_id = OrdersById::new(&sources.database);
    builder().data(histories).data(orders_by_id).data(sources).finish()
}

/// The schema's text, as it is committed in `query-api/schema.graphql`.
pub fn sdl() -> String {
    let options = SDLExportOptions::new().prefer_single_line_descriptions().include_specified_by();
    let sdl = builder().finish().sdl_with_options(options);
    format!("{}\n", sdl.trim())
}

fn builder() -> SchemaBuilder<Query, EmptyMutation, Subscription> {
    Schema::build(Query, EmptyMutation, Subscription)
        .override_output_type_description::<ID>("An id, as a text. Opaque unless its field says otherwise.")
        .override_output_type_description::<Listed<Order>>("One page of orders.")
        .override_output_type_description::<Listed<StockItem>>("One page of stock items.")
        .override_output_type_description::<Listed<AuditEvent>>("One page of events.")
        .limit_depth(QUERY_DEPTH_MAX)
        .limit_complexity(QUERY_COMPLEXITY_MAX)
        .limit_recursive_depth(QUERY_RECURSION_MAX)
        .limit_directives(FIELD_DIRECTIVES_MAX)
}
