//! What was found.

use std::fmt;

use comfy_table::{Table, presets};
use serde::Serialize;

use super::{Difference, Fix};

/// What was compared, and where the two differ.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Report {
    /// Orders in the log.
    pub orders: usize,
    /// Charges that the gateway made.
    pub charges: usize,
    /// Those of them of which it gave something back.
    pub refunds: usize,
    /// Charges that name no order: somebody else's, on the same account.
    pub foreign: usize,
    /// Orders and charges that were left out because they have moved just now.
    pub recent: usize,
    /// Every difference, by kind.
    pub differences: Vec<Difference>,
}

impl Report {
    /// Whether there is no difference, or none any more.
    pub fn agrees(&self) -> bool {
        self.differences.iter().all(|difference| difference.fixed == Some(true))
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { orders, charges, refunds, foreign, recent, differences } = self;
        write!(
            f,
            "{orders} orders in the log, {charges} charges at the gateway ({refunds} with refunds, {foreign} of somebody else), \
             {recent} too recent to tell: "
        )?;
        if differences.is_empty() {
            return write!(f, "no difference");
        }
        writeln!(f, "{} differences", differences.len())?;
        let mut table = Table::new();
        table.load_preset(presets::UTF8_FULL_CONDENSED);
        table.set_header(["kind", "order", "payment", "what", "what mends it", "mended"]);
        for difference in differences {
            let kind = serde_json::to_value(difference.kind).unwrap_or_default();
            let fix = match difference.fix {
                Fix::HandleAgain { position } => format!("handling position {position} again (--fix)"),
                Fix::GiveBack { .. } => "giving it back (--fix)".to_owned(),
                Fix::ByHand => "looking into it".to_owned(),
            };
            let fixed = match difference.fixed {
                None => "",
                Some(true) => "yes",
                Some(false) => "no",
            };
            table.add_row([
                kind.as_str().unwrap_or_default(),
                difference.order_id.as_deref().unwrap_or_default(),
                &difference.payment_intent_id,
                &difference.detail,
                &fix,
                fixed,
            ]);
        }
        write!(f, "{table}")
    }
}
