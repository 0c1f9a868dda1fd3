//! The audit trail's proof: a Merkle tree over the stored bytes, signed heads, and what others need to check both.

pub mod merkle;

pub mod proof;
mod tiles;

pub mod key;

pub mod checkpoint;

pub mod export;
mod formats;
mod recorded;
mod row;

pub mod consistency;
pub mod live;

mod diagnosis;
mod part;
mod reorder;
pub mod verify;
