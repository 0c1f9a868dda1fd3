//! The order and the stock item as the read models keep them: the `payload` column, and how events fold into it.
//!
//! A view is folded from [`cqrs_es::EventEnvelope`]s; [`envelope`] makes one of a stored event. Who folds a million takes the views' own
//! methods, which want an event and its [`Stamp`], and no map of texts. Folding an event that is already
//! folded in changes nothing, so a view never goes backwards.

mod envelope;

mod order;
mod stock;

pub use envelope::{POSITION, Stamp, TIME, envelope};
pub use order::{CustomerView, LineView, NotificationView, OrderView, PaymentFailureView, PaymentView, RejectionView};
pub use stock::StockView;
