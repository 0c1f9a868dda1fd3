//! What a notification answers to a command: events, or a rejection.

use super::{Notification, NotificationCommand, NotificationError, NotificationEvent, NotificationFailed, NotificationSent};

/// Decides `command` on `notification`.
pub fn decide(notification: &Notification, command: NotificationCommand) -> Result<Vec<NotificationEvent>, NotificationError> {
    match (notification, command) {
        (Notification::Pending | Notification::Failed, NotificationCommand::RecordSent(command)) => Ok(vec![
            NotificationSent {
                order_id: command.order_id,
                topic: command.topic,
                channel: command.channel,
                sent_at: command.sent_at,
            }
            .into(),
        ]),
        (Notification::Pending, NotificationCommand::RecordFailed(command)) => Ok(vec![
            NotificationFailed {
                order_id: command.order_id,
                topic: command.topic,
                channel: command.channel,
                reason: command.reason,
                failed_at: command.failed_at,
            }
            .into(),
        ]),
        (Notification::Sent, NotificationCommand::RecordSent(_)) | (Notification::Failed, NotificationCommand::RecordFailed(_)) => {
            Ok(vec![])
        }
        (Notification::Sent, NotificationCommand::RecordFailed(_)) => Err(NotificationError::AlreadySent),
    }
}
