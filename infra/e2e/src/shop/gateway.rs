//! The payment simulator's back door: its ledger, and its faults.

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

use super::{Shop, retry};

/// What the gateway says happened to money.
#[derive(Clone, Debug, Deserialize)]
pub struct GatewayLedger {
    /// What was taken.
    pub charges: Vec<Charge>,
    /// What was given back.
    pub refunds: Vec<Refund>,
}

/// Money that was taken.
#[derive(Clone, Debug, Deserialize)]
pub struct Charge {
    /// The gateway's id of the payment.
    pub payment_intent: String,
    /// Which order it was for, as we told the gateway.
    pub order_id: Option<String>,
    /// How much, in minor units.
    pub amount: i64,
    /// ISO 4217 in small letters.
    pub currency: String,
}

/// Money that was given back.
#[derive(Clone, Debug, Deserialize)]
pub struct Refund {
    /// The gateway's id of the refund.
    pub refund: String,
    /// Which order it was for, as we told the gateway.
    pub order_id: Option<String>,
    /// How much, in minor units.
    pub amount: i64,
}

impl Shop {
    /// Every charge and refund.
    pub async fn gateway_ledger(&self) -> anyhow::Result<GatewayLedger> {
        let request = self.http.get(format!("{}/_control/ledger", self.payment_simulator));
        Ok(retry::send(request, self.patience, "ledger", &self.vain).await?.json()?)
    }

    /// What the simulator says about itself: `faults`, `in_flight`, `counts`, `ledger`.
    pub async fn gateway_state(&self) -> anyhow::Result<Value> {
        let request = self.http.get(format!("{}/_control", self.payment_simulator));
        Ok(retry::send(request, self.patience, "state", &self.vain).await?.json()?)
    }

    /// Replaces the gateway's faults; an empty object switches all of them off.
    pub async fn set_gateway_faults(&self, faults: &Value) -> anyhow::Result<()> {
        let request = self.http.put(format!("{}/_control", self.payment_simulator)).json(faults);
        let state: Value = retry::send(request, self.patience, "faults", &self.vain).await?.json()?;
        state.get("faults").context("the simulator does not say which faults it has").map(drop)
    }
}
