//! The audit trail's proof: a Merkle tree over the stored bytes, signed heads, and what others need to check both.

pub mod merkle;

pub mod key;

pub mod checkpoint;

pub mod export;

mod diagnosis;
pub mod verify;
