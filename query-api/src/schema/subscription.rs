//! The root of every subscription.

use std::future::ready;

use async_graphql::{Context, ID, Subscription};
use auth::{Action, Caller};
use domain::OrderId;
use futures::Stream;
use futures::stream::{self, StreamExt as _, TryStreamExt as _};
use read_store::views::OrderView;

use super::Sources;
use super::audit::AuditEvent;
use super::node::parse_order_id;
use super::order::Order;
use super::query::{caller, sources};
use crate::error::QueryError;
use crate::limits::LOOKUP_COST;
use crate::live::{Followed, Follower, Ground};
use crate::reads::{self, AuditRow};

/// What can be followed, as it happens: over /graphql/ws with the subprotocol graphql-transport-ws, or as server-sent events from /graphql.
///
/// A subscription misses nothing and tells nothing twice, for as long as it lasts; whoever subscribes again begins anew.
#[derive(Clone, Copy, Debug)]
pub struct Subscription;

/// What can be followed, as it happens: over /graphql/ws with the subprotocol graphql-transport-ws, or as server-sent events from /graphql.
///
/// A subscription misses nothing and tells nothing twice, for as long as it lasts; whoever subscribes again begins anew.
#[Subscription]
impl Subscription {
    /// The order of that id: as it is now, and again after each event of it, its payment or its notifications, in the order of the log. An
    /// order that is not placed yet is waited for.
    #[graphql(complexity = "LOOKUP_COST + child_complexity")]
    async fn order_updated(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The order's own id (orderId) or its node id.")] id: ID,
    ) -> Result<impl Stream<Item = Result<Order, QueryError>> + use<>, QueryError> {
        let caller = allowed(ctx)?;
        let mut follower = follower(ctx, &id, Followed::Everything)?;
        let mut view = OrderView::default();
        let mut position = 0;
        for event in follower.so_far().await? {
            reads::fold(&mut view, &event).map_err(QueryError::internal)?;
            position = event.position;
        }
        let now = (view.version > 0).then(|| Ok(Order::as_of(view.clone(), position)));
        let later = stream::try_unfold((follower, view), async |(mut follower, mut view)| {
            let event = follower.next().await?;
            reads::fold(&mut view, &event).map_err(QueryError::internal)?;
            Ok(Some((Order::as_of(view.clone(), event.position), (follower, view))))
        });
        // Somebody else's order looks like one that is never placed.
        Ok(stream::iter(now).chain(later).try_filter(move |order: &Order| ready(order.is_visible_to(&caller))))
    }

    /// Every event of the order of that id and of its payment: those that happened, oldest first, and then each as it happens.
    #[graphql(complexity = "LOOKUP_COST + child_complexity")]
    #[expect(clippy::unused_async, reason = "the derive wants it")]
    async fn order_events(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "The order's own id (orderId) or its node id.")] id: ID,
    ) -> Result<impl Stream<Item = Result<AuditEvent, QueryError>> + use<>, QueryError> {
        let caller = allowed(ctx)?;
        let follower = follower(ctx, &id, Followed::History)?;
        let events = stream::try_unfold((follower, None), async |(mut follower, customer_id)| {
            let event = follower.next().await?;
            // Its first event says whose it is.
            let customer_id = customer_id.or_else(|| reads::customer_of(&event));
            Ok(Some(((event, customer_id.clone()), (follower, customer_id))))
        });
        let is_seen = move |event: &AuditRow, customer_id: Option<&str>| {
            reads::is_of_history(event) && caller.may(Action::ReadOrders, customer_id.unwrap_or_default())
        };
        let events = events.try_filter(move |(event, customer_id)| ready(is_seen(event, customer_id.as_deref())));
        Ok(events.map_ok(|(event, _)| AuditEvent::from((*event).clone())))
    }
}

/// Who asks, if they may read any order.
fn allowed(ctx: &Context<'_>) -> Result<Caller, QueryError> {
    let caller = caller(ctx)?;
    caller.whose(Action::ReadOrders)?;
    Ok(caller.clone())
}

fn follower(ctx: &Context<'_>, id: &ID, followed: Followed) -> Result<Follower, QueryError> {
    let order_id =
        parse_order_id(id).ok_or_else(|| QueryError::BadUserInput(format!("id: {:?} is not the id of an order", id.0)))?;
    let Sources { database, positions, min_position_wait, live } = sources(ctx).clone();
    Ok(Follower::new(Ground { database, positions, live, wait: min_position_wait }, OrderId(order_id), followed))
}
