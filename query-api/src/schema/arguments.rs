//! What every list takes: page arguments, what a page costs, and which ends of it matter.

use async_graphql::connection::Edge;
use async_graphql::{Context, OutputType};

use super::Listed;
use crate::limits::{INNER_LIST_ENTRIES_ASSUMED, LOOKUP_COST, PAGE_ROWS_DEFAULT, PAGE_ROWS_MAX};
use crate::paging::Key as _;
use crate::reads::{Ends, Slice, Table};

/// What a page costs: one read, and its content once per row.
pub(super) fn page_cost(first: Option<i32>, last: Option<i32>, row_cost: usize) -> usize {
    // What is out of range is refused later, with a better message.
    let rows = first.or(last).unwrap_or(PAGE_ROWS_DEFAULT).clamp(1, PAGE_ROWS_MAX);
    LOOKUP_COST + usize::try_from(rows).unwrap_or_default() * row_cost
}

/// What a list costs that comes with its row: no read, and its content once per entry that is assumed.
pub(super) fn inner_list_cost(entry_cost: usize) -> usize {
    1 + INNER_LIST_ENTRIES_ASSUMED * entry_cost
}

/// Which ends of the page the query asks for.
pub(super) fn ends(ctx: &Context<'_>) -> Ends {
    let asks_for = |field| ctx.look_ahead().field("pageInfo").field(field).exists();
    Ends { previous: asks_for("hasPreviousPage"), next: asks_for("hasNextPage") }
}

/// The connection of these rows.
pub(super) fn listed<R: Table, N: OutputType + From<R>>(slice: Slice<R>) -> Listed<N> {
    let mut listed = Listed::new(slice.has_previous, slice.has_next);
    listed.edges.extend(slice.rows.into_iter().map(|row| Edge::new(row.key().cursor(), N::from(row))));
    listed
}
