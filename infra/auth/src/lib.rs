//! Who calls, and what they may do (DESIGN §14): the same for every service that answers callers.
//!
//! A caller shows a JSON Web Token (RFC 7519) as a bearer token (RFC 6750), signed with EdDSA or RS256 by a key of a JSON Web Key Set
//! (RFC 7517) that the service is told of. The token's `role` and `sub` say who calls; [`access`] says what that role may do, in one
//! table. Where authentication is off, everybody is [`Caller::anyone`] and may do everything; then only this machine may call.
//!
//! In reading order: [`settings`]; [`door`], which asks every caller; `token` and `keys`, which check what they show; [`access`];
//! `rate`, how often they may come.

pub mod access;
pub mod door;
pub mod settings;

mod keys;
mod rate;
mod rings;
mod token;

pub use access::{Action, Caller, Forbidden, Role, Scope};
pub use door::{Door, Refused};
pub use settings::{AuthFlags, AuthSettings};
