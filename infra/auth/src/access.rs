//! Who may do what.

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime},
};

/// What a caller is, by the token's claim `role`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Somebody who buys; sees and changes only orders whose customer has the token's `sub` as id.
    Customer,
    /// A checkout, which acts for any customer.
    Service,
    /// Runs the shop: stock, parcels, cancellations. Reads everything but the payloads of the audit trail.
    Operator,
    /// Reads everything, changes nothing.
    Auditor,
}

impl Role {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Customer, Self::Service, Self::Operator, Self::Auditor];

    /// The claim's value.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Customer => "customer",
            Self::Service => "service",
            Self::Operator => "operator",
            Self::Auditor => "auditor",
        }
    }

    /// On whose things this role may do that.
    pub fn scope(self, action: Action) -> Scope {
        use Action::{CancelOrder, ImportOrders, PlaceOrder, ReadOrders, ReadPayloads, ReadProjections, ReadStock, ReadTrail};
        let (may, whose) = match self {
            Self::Customer => (matches!(action, PlaceOrder | CancelOrder | ReadOrders | ReadPayloads), Scope::Own),
            Self::Service => {
                let acts = matches!(action, PlaceOrder | ImportOrders | CancelOrder);
                (acts || matches!(action, ReadOrders | ReadPayloads | ReadStock | ReadProjections), Scope::All)
            }
            Self::Operator => (!matches!(action, PlaceOrder | ImportOrders | ReadPayloads), Scope::All),
            Self::Auditor => (matches!(action, ReadOrders | ReadPayloads | ReadStock | ReadTrail | ReadProjections), Scope::All),
        };
        if may { whose } else { Scope::Nothing }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let role = Self::ALL.into_iter().find(|role| role.as_str() == text);
        role.ok_or_else(|| format!("must be one of {}", Self::ALL.map(Self::as_str).join(", ")))
    }
}

/// What can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// Place an order.
    PlaceOrder,
    /// Place any number of orders with one request. Services only: a customer's rate counts requests, and such a request is
    /// as many orders as its sender likes.
    ImportOrders,
    /// Call an order off.
    CancelOrder,
    /// Hand an order to the carrier.
    ShipOrder,
    /// Say that an order arrived.
    DeliverOrder,
    /// Book stock in or correct it.
    ChangeStock,
    /// See orders, with what happened to each.
    ReadOrders,
    /// See stock.
    ReadStock,
    /// See the audit trail as a whole.
    ReadTrail,
    /// See what events hold.
    ReadPayloads,
    /// See how far the read models are.
    ReadProjections,
}

impl Action {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::PlaceOrder,
        Self::ImportOrders,
        Self::CancelOrder,
        Self::ShipOrder,
        Self::DeliverOrder,
        Self::ChangeStock,
        Self::ReadOrders,
        Self::ReadStock,
        Self::ReadTrail,
        Self::ReadPayloads,
        Self::ReadProjections,
    ];

    /// In words, after "may".
    fn in_words(self) -> &'static str {
        match self {
            Self::PlaceOrder => "place orders",
            Self::ImportOrders => "place orders in bulk",
            Self::CancelOrder => "cancel orders",
            Self::ShipOrder => "ship orders",
            Self::DeliverOrder => "deliver orders",
            Self::ChangeStock => "change stock",
            Self::ReadOrders => "read orders",
            Self::ReadStock => "read stock",
            Self::ReadTrail => "read the audit trail",
            Self::ReadPayloads => "read what events hold",
            Self::ReadProjections => "read how far the read models are",
        }
    }
}

/// On whose things something may be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// On nobody's.
    Nothing,
    /// On the caller's own.
    Own,
    /// On everybody's.
    All,
}

/// Who calls. Cheap to clone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    identity: Option<Identity>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Identity {
    role: Role,
    subject: Arc<str>,
    expires_at: SystemTime,
}

/// The caller may not do that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Forbidden(String);

impl Caller {
    /// Nobody was asked who they are, so everybody may do everything.
    pub fn anyone() -> Self {
        Self { identity: None }
    }

    /// Who a good token says they are, for as long as it is good.
    pub fn new(role: Role, subject: &str, expires_at: SystemTime) -> Self {
        Self { identity: Some(Identity { role, subject: subject.into(), expires_at }) }
    }

    /// What they are; `None` if they were not asked.
    pub fn role(&self) -> Option<Role> {
        self.identity.as_ref().map(|identity| identity.role)
    }

    /// As an event's `actor` has it: `role:sub`, or `anonymous`.
    pub fn actor(&self) -> String {
        match &self.identity {
            Some(Identity { role, subject, .. }) => format!("{role}:{subject}"),
            None => "anonymous".to_owned(),
        }
    }

    /// For how long they may go on; `None` is for ever.
    pub fn expires_in(&self) -> Option<Duration> {
        let Identity { expires_at, .. } = self.identity.as_ref()?;
        Some(expires_at.duration_since(now()).unwrap_or_default())
    }

    fn scope(&self, action: Action) -> Scope {
        self.role().map_or(Scope::All, |role| role.scope(action))
    }

    /// Whose things the caller may do that on: `None` is everybody's, else those of the customer of this id.
    pub fn whose(&self, action: Action) -> Result<Option<&str>, Forbidden> {
        match (self.scope(action), &self.identity) {
            (Scope::All, _) | (_, None) => Ok(None),
            (Scope::Own, Some(identity)) => Ok(Some(&identity.subject)),
            (Scope::Nothing, Some(Identity { role, .. })) => Err(Forbidden(format!("{} may not {}", role, action.in_words()))),
        }
    }

    /// Whether the caller may do that on what is `customer_id`'s.
    pub fn may(&self, action: Action, customer_id: &str) -> bool {
        self.whose(action).is_ok_and(|whose| whose.is_none_or(|own| own == customer_id))
    }

    /// Refuses what the caller may not do on everybody's things.
    pub fn check(&self, action: Action) -> Result<(), Forbidden> {
        match self.whose(action)? {
            None => Ok(()),
            Some(_) => Err(Forbidden(format!("customers may {} only where they are the customer", action.in_words()))),
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "whether a token is still good is a question of the wall clock")]
pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// DESIGN §14, as a table: `A` all, `o` one's own, `.` nothing; customer, service, operator, auditor.
    const TABLE: [(Action, &str); 11] = [
        (Action::PlaceOrder, "oA.."),
        (Action::ImportOrders, ".A.."),
        (Action::CancelOrder, "oAA."),
        (Action::ShipOrder, "..A."),
        (Action::DeliverOrder, "..A."),
        (Action::ChangeStock, "..A."),
        (Action::ReadOrders, "oAAA"),
        (Action::ReadStock, ".AAA"),
        (Action::ReadTrail, "..AA"),
        (Action::ReadPayloads, "oA.A"),
        (Action::ReadProjections, ".AAA"),
    ];

    #[test]
    fn each_role_may_do_what_the_table_says() {
        assert_eq!(TABLE.map(|(action, _)| action), Action::ALL);
        for (action, scopes) in TABLE {
            let expected = scopes.chars().map(|scope| match scope {
                'A' => Scope::All,
                'o' => Scope::Own,
                _ => Scope::Nothing,
            });
            assert_eq!(Role::ALL.map(|role| role.scope(action)).to_vec(), expected.collect::<Vec<_>>(), "{action:?}");
        }
    }

    #[test]
    fn a_customer_has_what_is_their_own() {
        let customer = Caller::new(Role::Customer, "c-1", now() + Duration::from_secs(60));
        assert!(customer.may(Action::ReadOrders, "c-1") && !customer.may(Action::ReadOrders, "c-2"));
        assert_eq!(customer.whose(Action::ReadOrders), Ok(Some("c-1")));
        assert!(customer.check(Action::ReadOrders).is_err() && customer.check(Action::ReadTrail).is_err());
        assert_eq!(customer.actor(), "customer:c-1");
        assert!(customer.expires_in().is_some_and(|left| left > Duration::from_secs(50)));
    }

    #[test]
    fn anyone_may_do_everything() {
        for action in Action::ALL {
            assert_eq!((Caller::anyone().check(action), Caller::anyone().may(action, "c-1")), (Ok(()), true));
        }
        assert_eq!((Caller::anyone().actor(), Caller::anyone().expires_in()), ("anonymous".to_owned(), None));
    }
}
