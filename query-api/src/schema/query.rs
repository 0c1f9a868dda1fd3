//! The root of every query.

use async_graphql::{Context, ID, Object};
use auth::{Action, Caller};
use read_store::projections::ProjectionName;
use time::OffsetDateTime;

use super::arguments::{ends, listed, page_cost};
use super::audit::{AuditEvent, AuditFilter};
use super::node::{Node, NodeId, parse_order_id};
use super::order::{Order, OrderFilter, OrderSort, OrderSortField};
use super::projection::Projection;
use super::scalars::Position;
use super::stock::{StockFilter, StockItem};
use super::{Listed, Sources};
use crate::error::{QueryError, in_utc};
use crate::limits::LOOKUP_COST;
use crate::paging::{Page, PageArguments, Sorted};
use crate::reads::{
    self, AuditConditions, AuditRow, ByPlacing, ByUpdate, Moment, OrderConditions, OrderKey, OrderRow, OrdersById, StockConditions,
    StockRow,
};

/// What can be asked.
///
/// Where a field takes minPosition, it first waits, for a bounded time, until its read model has taken in the event at that place
/// of the log; so what the command API just answered is seen. If that takes too long, the error's extensions.code is STALE_READ.
#[derive(Clone, Copy, Debug)]
pub struct Query;

/// What can be asked.
///
/// Where a field takes minPosition, it first waits, for a bounded time, until its read model has taken in the event at that place
/// of the log; so what the command API just answered is seen. If that takes too long, the error's extensions.code is STALE_READ.
#[Object]
impl Query {
    /// The order of that id; null if there is none, or was none at the moment that is asked for.
    ///
    /// asOf and asOfPosition read the audit trail, so with them minPosition waits for that.
    #[graphql(complexity = "LOOKUP_COST + child_complexity")]
    async fn order(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The order's own id (orderId) or its node id.")] id: ID,
        #[graphql(desc = "Wait until the read model has this position.")] min_position: Option<Position>,
        #[graphql(desc = "The order as it was at this time, by the clocks of those who appended its events.")] as_of: Option<
            OffsetDateTime,
        >,
        #[graphql(desc = "The order as it was right after the event at this position. Not together with asOf.")]
        as_of_position: Option<Position>,
    ) -> Result<Option<Order>, QueryError> {
        let caller = caller(ctx)?;
        caller.whose(Action::ReadOrders)?;
        let moment = match (as_of, as_of_position) {
            (Some(_), Some(_)) => {
                let message = "asOf and asOfPosition cannot be combined: ask for one of them";
                return Err(QueryError::BadUserInput(message.to_owned()));
            }
            (Some(time), None) => Some(Moment::Time(in_utc(time)?)),
            (None, Some(position)) => Some(Moment::Position(position.to_bigint())),
            (None, None) => None,
        };
        let sources = sources(ctx);
        match moment {
            None => sources.reach(ProjectionName::Orders, min_position).await?,
            Some(_) => sources.reach_past(as_of_position, min_position).await?,
        }
        let Some(order_id) = parse_order_id(&id).map(|id| id.to_string()) else { return Ok(None) };
        let order = match moment {
            None => {
                let order = orders_by_id(ctx).get(order_id).await?;
                order.map(|row| Order::at_least(row, min_position))
            }
            Some(moment) => {
                let order = reads::order_as_of(&sources.database, &order_id, moment).await?;
                order.map(|(view, up_to)| Order::as_of(view, up_to))
            }
        };
        Ok(order.filter(|order| order.is_visible_to(caller)))
    }

    /// Orders, page by page.
    ///
    /// A cursor belongs to the field that its list was sorted by.
    #[graphql(complexity = "page_cost(first, last, child_complexity)")]
    #[expect(clippy::too_many_arguments, reason = "they are the field's arguments, as the Relay specification wants them")]
    async fn orders(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which orders; all if left out.")] filter: Option<OrderFilter>,
        #[graphql(desc = "In which order; by placedAt, the newest first, if left out.")] order_by: Option<OrderSort>,
        #[graphql(desc = "How many from the start of the range, 0 to 100; 20 if neither first nor last is given.")] first: Option<
            i32,
        >,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end of the range, 0 to 100. Not together with first.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
        #[graphql(desc = "Wait until the read model has this position.")] min_position: Option<Position>,
    ) -> Result<Listed<Order>, QueryError> {
        let visible_of = caller(ctx)?.whose(Action::ReadOrders)?;
        let order_by = order_by.unwrap_or_default();
        let wanted = Wanted {
            conditions: filter.unwrap_or_default().conditions(visible_of)?,
            sorted: order_by.direction.into(),
            page: PageArguments { first, after, last, before },
            min_position,
        };
        match order_by.field {
            OrderSortField::PlacedAt => wanted.read::<ByPlacing>(ctx).await,
            OrderSortField::UpdatedAt => wanted.read::<ByUpdate>(ctx).await,
        }
    }

    /// The stock of one SKU; null if nothing of it ever came in.
    #[graphql(complexity = "LOOKUP_COST + child_complexity")]
    async fn stock_item(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The stock keeping unit.")] sku: String,
        #[graphql(desc = "Wait until the read model has this position.")] min_position: Option<Position>,
    ) -> Result<Option<StockItem>, QueryError> {
        caller(ctx)?.check(Action::ReadStock)?;
        let sources = sources(ctx);
        sources.reach(ProjectionName::Inventory, min_position).await?;
        Ok(reads::stock_item(&sources.database, &sku).await?.map(StockItem::from))
    }

    /// The stock of every SKU, by SKU.
    #[graphql(complexity = "page_cost(first, last, child_complexity)")]
    #[expect(clippy::too_many_arguments, reason = "they are the field's arguments, as the Relay specification wants them")]
    async fn stock_items(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which SKUs; all if left out.")] filter: Option<StockFilter>,
        #[graphql(desc = "How many from the start of the range, 0 to 100; 20 if neither first nor last is given.")] first: Option<
            i32,
        >,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end of the range, 0 to 100. Not together with first.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
        #[graphql(desc = "Wait until the read model has this position.")] min_position: Option<Position>,
    ) -> Result<Listed<StockItem>, QueryError> {
        caller(ctx)?.check(Action::ReadStock)?;
        let page = Page::new(PageArguments { first, after, last, before })?;
        let conditions = filter.map(StockConditions::from).unwrap_or_default();
        let sources = sources(ctx);
        sources.reach(ProjectionName::Inventory, min_position).await?;
        reads::page::<StockRow>(&sources.database, &conditions, &page, ends(ctx)).await.map(listed)
    }

    /// Every event of the log, by position, the first one first.
    #[graphql(complexity = "page_cost(first, last, child_complexity)")]
    #[expect(clippy::too_many_arguments, reason = "they are the field's arguments, as the Relay specification wants them")]
    async fn audit_trail(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "Which events; all if left out.")] filter: Option<AuditFilter>,
        #[graphql(desc = "How many from the start of the range, 0 to 100; 20 if neither first nor last is given.")] first: Option<
            i32,
        >,
        #[graphql(desc = "Only what comes after this cursor.")] after: Option<String>,
        #[graphql(desc = "How many from the end of the range, 0 to 100. Not together with first.")] last: Option<i32>,
        #[graphql(desc = "Only what comes before this cursor.")] before: Option<String>,
        #[graphql(desc = "Wait until the read model has this position.")] min_position: Option<Position>,
    ) -> Result<Listed<AuditEvent>, QueryError> {
        caller(ctx)?.check(Action::ReadTrail)?;
        let page = Page::new(PageArguments { first, after, last, before })?;
        let conditions = filter.map(AuditConditions::try_from).transpose()?.unwrap_or_default();
        let sources = sources(ctx);
        sources.reach(ProjectionName::Audit, min_position).await?;
        reads::page::<AuditRow>(&sources.database, &conditions, &page, ends(ctx)).await.map(listed)
    }

    /// Every read model and how far it is.
    #[graphql(complexity = "LOOKUP_COST + child_complexity")]
    async fn projections(&self, ctx: &Context<'_>) -> Result<Vec<Projection>, QueryError> {
        caller(ctx)?.check(Action::ReadProjections)?;
        Ok(reads::projections(&sources(ctx).database).await?.into_iter().map(Projection::from).collect())
    }

    /// The object of that node id; null if there is none.
    #[graphql(complexity = "LOOKUP_COST + child_complexity")]
    async fn node(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The id of an Order, a StockItem or an AuditEvent.")] id: ID,
    ) -> Result<Option<Node>, QueryError> {
        let (caller, database) = (caller(ctx)?, &sources(ctx).database);
        Ok(match NodeId::parse(&id) {
            Some(NodeId::Order(order_id)) => {
                caller.whose(Action::ReadOrders)?;
                let order = orders_by_id(ctx).get(order_id.to_string()).await?.map(Order::from);
                order.filter(|order| order.is_visible_to(caller)).map(Node::Order)
            }
            Some(NodeId::StockItem(sku)) => {
                caller.check(Action::ReadStock)?;
                reads::stock_item(database, &sku).await?.map(|row| Node::StockItem(row.into()))
            }
            Some(NodeId::AuditEvent(position)) => {
                let Some(event) = reads::audit_event(database, position).await? else { return Ok(None) };
                is_visible(&event, caller, orders_by_id(ctx)).await?.then(|| Node::AuditEvent(event.into()))
            }
            None => None,
        })
    }
}

/// The orders that are asked for.
struct Wanted {
    conditions: OrderConditions,
    sorted: Sorted,
    page: PageArguments,
    min_position: Option<Position>,
}

impl Wanted {
    /// Reads them, sorted by `K`.
    async fn read<K: OrderKey>(self, ctx: &Context<'_>) -> Result<Listed<Order>, QueryError> {
        let page = Page { sorted: self.sorted, ..Page::new(self.page)? };
        let sources = sources(ctx);
        sources.reach(ProjectionName::Orders, self.min_position).await?;
        reads::page::<OrderRow<K>>(&sources.database, &self.conditions, &page, ends(ctx)).await.map(listed)
    }
}

/// Whoever may read the whole trail sees every event; others see what the history of an order shows them.
async fn is_visible(event: &AuditRow, caller: &Caller, orders: &OrdersById) -> Result<bool, QueryError> {
    if caller.check(Action::ReadTrail).is_ok() {
        return Ok(true);
    }
    if !reads::is_of_history(event) {
        return Ok(false);
    }
    let order = orders.get(event.aggregate_id.clone()).await?.map(Order::from);
    Ok(order.is_some_and(|order| order.is_visible_to(caller)))
}

fn orders_by_id<'a>(ctx: &Context<'a>) -> &'a OrdersById {
    ctx.data_unchecked()
}

/// Who asks.
pub(super) fn caller<'a>(ctx: &Context<'a>) -> Result<&'a Caller, QueryError> {
    ctx.data().map_err(|error| QueryError::internal(error.message))
}

pub(super) fn sources<'a>(ctx: &Context<'a>) -> &'a Sources {
    ctx.data_unchecked()
}

impl Sources {
    /// Waits for `min_position`, if any. A statement that begins afterwards sees everything up to there.
    pub(super) async fn reach(&self, projection: ProjectionName, min_position: Option<Position>) -> Result<(), QueryError> {
        if let Some(Position(min_position)) = min_position {
            self.positions.reach(projection, min_position, self.min_position_wait).await?;
        }
        Ok(())
    }

    /// Waits until an order can be told as it was: at that position, or at a time if there is none.
    async fn reach_past(&self, position: Option<Position>, min_position: Option<Position>) -> Result<(), QueryError> {
        self.reach(ProjectionName::Audit, min_position).await?;
        // What the audit trail does not have yet cannot be left out of the past.
        self.reach(ProjectionName::Audit, position).await?;
        // The order's row says which notifications are the order's, so it must know of all that the trail has.
        let up_to = position.unwrap_or_else(|| Position(self.positions.current(ProjectionName::Audit)));
        self.reach(ProjectionName::Orders, Some(up_to)).await
    }
}
