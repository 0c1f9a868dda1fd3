//! Why a notification refuses a command.

/// A rejection: what the channel is said to have done does not fit what is recorded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotificationError {
    /// What the channel took, it cannot have refused.
    #[error("a notification that was sent cannot fail")]
    AlreadySent,
}
