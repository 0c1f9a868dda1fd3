//! Orders.

mod parts;

use async_graphql::dataloader::DataLoader;
use async_graphql::{Context, Enum, ID, InputObject, Object};
use auth::{Action, Caller};
use domain::order::OrderStatus as DomainStatus;
use domain::payment::PaymentStatus as DomainPaymentStatus;
use read_store::projections::ProjectionName;
use read_store::views::OrderView;
use time::OffsetDateTime;

use super::arguments::{ends, inner_list_cost, listed, page_cost};
use super::audit::AuditEvent;
use super::money::Money;
use super::scalars::{Position, int};
use super::{Listed, Sources, node};
use crate::database::statement_span;
use crate::error::{QueryError, in_utc};
use crate::paging::{Page, PageArguments, Sorted};
use crate::reads::{self, AuditKey, AuditRow, Ends, Histories, HistoryOf, OrderConditions, OrderRow, Slice};
use parts::{Cancellation, Customer, Notification, OrderLine, Payment, Rejection, Shipment};

/// An order, from the checkout to the doorstep.
pub(super) struct Order {
    view: OrderView,
    /// Its history goes up to here.
    up_to: i64,
    /// The position that was waited for, and that its history has to have as well.
    min_position: Option<Position>,
}

impl Order {
    /// The order as it was right after the event at `up_to`.
    pub(super) fn as_of(view: OrderView, up_to: i64) -> Self {
        Self { view, up_to, min_position: None }
    }

    /// Whether that caller may know that it exists.
    pub(super) fn is_visible_to(&self, caller: &Caller) -> bool {
        caller.may(Action::ReadOrders, &self.view.customer.id)
    }

    /// The order as the read model has it, once that had `min_position`.
    pub(super) fn at_least(row: OrderRow, min_position: Option<Position>) -> Self {
        Self { min_position, ..Self::from(row) }
    }
}

impl<K> From<OrderRow<K>> for Order {
    fn from(row: OrderRow<K>) -> Self {
        Self { view: row.view, up_to: i64::MAX, min_position: None }
    }
}

/// An order, from the checkout to the doorstep.
#[Object]
impl Order {
    /// The object's id among all objects. Opaque: hand it back as it is.
    pub(super) async fn id(&self) -> ID {
        node::order_id(&self.view.order_id)
    }

    /// The order's own id, a UUID, as the command API knows it.
    async fn order_id(&self) -> ID {
        ID(self.view.order_id.clone())
    }

    /// Where it stands. Never goes backwards.
    async fn status(&self) -> OrderStatus {
        self.view.status.into()
    }

    /// Where its payment stands. Never goes backwards.
    async fn payment_status(&self) -> PaymentStatus {
        self.view.payment_status.into()
    }

    /// Who buys.
    async fn customer(&self) -> Customer {
        Customer::from(&self.view.customer)
    }

    /// What is bought.
    #[graphql(complexity = "inner_list_cost(child_complexity)")]
    async fn lines(&self) -> Vec<OrderLine> {
        let currency = self.view.total.currency;
        self.view.lines.iter().map(|line| OrderLine::new(line, currency)).collect()
    }

    /// What it costs in all.
    async fn total(&self) -> Money {
        self.view.total.into()
    }

    /// When the checkout placed it.
    async fn placed_at(&self) -> OffsetDateTime {
        self.view.placed_at
    }

    /// When the last event was appended that is taken in here: the order's, its payment's or a notification's.
    async fn updated_at(&self) -> OffsetDateTime {
        self.view.updated_at
    }

    /// The order's own version: how many events it has had. The command API takes it as If-Match.
    async fn version(&self) -> i32 {
        int(self.view.version)
    }

    /// The place in the log of the last event that is taken in here: the order's, its payment's or a notification's.
    async fn position(&self) -> Position {
        Position(self.view.position)
    }

    /// When stock was set aside for every line; null before.
    async fn reserved_at(&self) -> Option<OffsetDateTime> {
        self.view.reserved_at
    }

    /// Until when it must be paid; null before stock is set aside.
    async fn payment_due_at(&self) -> Option<OffsetDateTime> {
        self.view.payment_due_at
    }

    /// When it was paid and confirmed; null before.
    async fn confirmed_at(&self) -> Option<OffsetDateTime> {
        self.view.confirmed_at
    }

    /// Why it was rejected; null unless it was.
    async fn rejection(&self) -> Option<Rejection> {
        self.view.rejection.as_ref().map(Rejection::from)
    }

    /// How it was called off; null unless it was.
    async fn cancellation(&self) -> Option<Cancellation> {
        self.view.cancellation.as_ref().map(Cancellation::from)
    }

    /// How it was shipped; null before.
    async fn shipment(&self) -> Option<Shipment> {
        self.view.shipment.as_ref().map(Shipment::from)
    }

    /// What the payment gateway did; null before it answered.
    async fn payment(&self) -> Option<Payment> {
        self.view.payment.as_ref().map(|payment| Payment::new(payment, self.view.payment_status.into()))
    }

    /// What the customer was told, or could not be told, oldest first.
    #[graphql(complexity = "inner_list_cost(child_complexity)")]
    async fn notifications(&self) -> Vec<Notification> {
        self.view.notifications.iter().map(Notification::from).collect()
    }

    /// Every event of the order and of its payment, in the order in which they happened.
    ///
    /// It is read from the audit trail. The minPosition of Query.order is waited for here, too.
    #[graphql(complexity = "page_cost(first, None, child_complexity)")]
    async fn history(
        &self,
        ctx: &Context<'_>,
        #[graphql(desc = "How many events, 0 to 100; 20 if left out.")] first: Option<i32>,
        #[graphql(desc = "Only events after this cursor.")] after: Option<String>,
    ) -> Result<Listed<AuditEvent>, QueryError> {
        let page = Page::new(PageArguments { first, after, ..PageArguments::default() })?;
        ctx.data_unchecked::<Sources>().reach(ProjectionName::Audit, self.min_position).await?;
        self.read_history(ctx, &page, ends(ctx)).await.map(listed)
    }
}

impl Order {
    /// Orders of one page share a statement.
    async fn read_history(&self, ctx: &Context<'_>, page: &Page<AuditKey>, ends: Ends) -> Result<Slice<AuditRow>, QueryError> {
        let order_id = &self.view.order_id;
        let wanted = HistoryOf {
            order_id: order_id.clone(),
            after: page.after.map_or(0, |key| key.0),
            up_to: self.up_to,
            rows: i64::try_from(page.rows).expect("a page has at most 100 rows") + 1,
        };
        let histories = ctx.data_unchecked::<DataLoader<Histories>>();
        let waited_for = statement_span();
        let mut rows = histories.load_one(wanted).await?.unwrap_or_default();
        drop(waited_for);
        let has_next = rows.len() > page.rows;
        rows.truncate(page.rows);
        let has_previous = match page.after {
            Some(after) if ends.previous => {
                let sources = ctx.data_unchecked::<Sources>();
                reads::has_history_up_to(&sources.database, order_id, after.0).await?
            }
            _ => false,
        };
        Ok(Slice { rows, has_previous, has_next })
    }
}

/// Where an order stands.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "DomainStatus")]
pub(super) enum OrderStatus {
    /// Accepted; stock is not yet decided.
    Placed,
    /// Stock is set aside; payment is outstanding.
    Reserved,
    /// Paid.
    Confirmed,
    /// With the carrier.
    Shipped,
    /// Arrived. Final.
    Delivered,
    /// Not enough stock. Final.
    Rejected,
    /// Called off. Final.
    Cancelled,
}

/// Where a payment stands.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
#[graphql(remote = "DomainPaymentStatus")]
pub(super) enum PaymentStatus {
    /// Nothing is recorded.
    None,
    /// The money was taken.
    Captured,
    /// It was refused for good. Final.
    Declined,
    /// It was taken and given back. Final.
    Refunded,
}

/// Which orders. A field that is left out excludes nothing; all that are given must hold.
#[derive(Default, InputObject)]
pub(super) struct OrderFilter {
    /// In any of these states.
    status: Option<Vec<OrderStatus>>,
    /// With a payment in this state.
    payment_status: Option<PaymentStatus>,
    /// Of the customer of this id.
    customer_id: Option<String>,
    /// Of customers whose id begins with this.
    customer_id_prefix: Option<String>,
    /// The order's own id (orderId) begins with this: the first digits of a UUID, with its hyphens, large or small.
    order_id_prefix: Option<String>,
    /// With a line of this SKU.
    sku: Option<String>,
    /// Placed at this time or later.
    placed_after: Option<OffsetDateTime>,
    /// Placed earlier than this.
    placed_before: Option<OffsetDateTime>,
}

impl OrderFilter {
    /// The conditions that it stands for, on the orders of `visible_of` if the caller may see no others.
    pub(super) fn conditions(self, visible_of: Option<&str>) -> Result<OrderConditions, QueryError> {
        Ok(OrderConditions {
            status: self.status.map(|statuses| statuses.into_iter().map(Into::into).collect()),
            payment_status: self.payment_status.map(Into::into),
            customer_id: self.customer_id,
            customer_id_prefix: self.customer_id_prefix,
            order_id_prefix: self.order_id_prefix.as_deref().map(beginning_of_uuid).transpose()?,
            sku: self.sku,
            visible_of: visible_of.map(str::to_owned),
            placed_after: self.placed_after.map(in_utc).transpose()?,
            placed_before: self.placed_before.map(in_utc).transpose()?,
        })
    }
}

/// The text as it stands in an id.
fn beginning_of_uuid(text: &str) -> Result<String, QueryError> {
    const PATTERN: &[u8] = b"xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx";
    let fits = |(byte, pattern): (u8, &u8)| if *pattern == b'-' { byte == b'-' } else { byte.is_ascii_hexdigit() };
    if text.len() <= PATTERN.len() && text.bytes().zip(PATTERN).all(fits) {
        return Ok(text.to_ascii_lowercase());
    }
    let message =
        "orderIdPrefix must be what a UUID begins with, hexadecimal digits with hyphens in their places, such as \"0197a3c5-7\"";
    Err(QueryError::BadUserInput(message.to_owned()))
}

/// By what orders are sorted, and which way.
#[derive(Clone, Copy, InputObject)]
pub(super) struct OrderSort {
    /// By what.
    pub(super) field: OrderSortField,
    /// Which way.
    #[graphql(default)]
    pub(super) direction: SortDirection,
}

impl Default for OrderSort {
    fn default() -> Self {
        Self { field: OrderSortField::PlacedAt, direction: SortDirection::Desc }
    }
}

/// What orders can be sorted by. Those that are equal in it are sorted by their ids.
#[derive(Clone, Copy, PartialEq, Eq, Enum)]
pub(super) enum OrderSortField {
    /// When they were placed.
    PlacedAt,
    /// When they last changed. An order that changes while its list is paged through moves to that end of it.
    UpdatedAt,
}

/// Which way a list is sorted.
#[derive(Clone, Copy, Default, PartialEq, Eq, Enum)]
pub(super) enum SortDirection {
    /// The earliest first.
    Asc,
    /// The latest first.
    #[default]
    Desc,
}

impl From<SortDirection> for Sorted {
    /// The tables' own orders begin with the latest.
    fn from(direction: SortDirection) -> Self {
        match direction {
            SortDirection::Desc => Self::AsIs,
            SortDirection::Asc => Self::Reversed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_id_begins_with_digits_and_hyphens_in_their_places() {
        for (text, begins) in [
            ("", Some("")),
            ("0C62", Some("0c62")),
            ("0c628b8e-6A", Some("0c628b8e-6a")),
            ("0c628b8e-6a0f-5c0e-9a39-5f5e2f6b7a01", Some("0c628b8e-6a0f-5c0e-9a39-5f5e2f6b7a01")),
            ("0c628b8e-6a0f-5c0e-9a39-5f5e2f6b7a012", None),
            ("0c628b8e6", None),
            ("0c62%", None),
            ("-", None),
            ("é", None),
        ] {
            assert_eq!(beginning_of_uuid(text).ok().as_deref(), begins, "{text}");
        }
    }
}
