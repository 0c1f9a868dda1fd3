use cqrs_es::test::TestFramework;
use domain::notification::{Notification, NotificationCommand, NotificationError, RecordFailed, RecordSent, Topic};

use crate::given::{NOW, failed, order_id, sent};

fn notification() -> TestFramework<Notification> {
    TestFramework::with(())
}

fn record_sent() -> NotificationCommand {
    let (topic, channel) = (Topic::OrderConfirmed, "email".to_owned());
    NotificationCommand::RecordSent(RecordSent { order_id: order_id(1), topic, channel, sent_at: NOW })
}

fn record_failed() -> NotificationCommand {
    NotificationCommand::RecordFailed(RecordFailed {
        order_id: order_id(1),
        topic: Topic::OrderConfirmed,
        channel: "email".to_owned(),
        reason: "no such mailbox".to_owned(),
        failed_at: NOW,
    })
}

#[test]
fn a_notification_is_recorded_once() {
    notification().given_no_previous_events().when(record_sent()).then_expect_events(vec![sent().into()]);
    notification().given(vec![sent().into()]).when(record_sent()).then_expect_events(vec![]);
    notification().given_no_previous_events().when(record_failed()).then_expect_events(vec![failed().into()]);
    notification().given(vec![failed().into()]).when(record_failed()).then_expect_events(vec![]);
}

#[test]
fn a_failed_notification_can_still_be_sent_but_not_the_other_way_round() {
    notification().given(vec![failed().into()]).when(record_sent()).then_expect_events(vec![sent().into()]);
    notification().given(vec![sent().into()]).when(record_failed()).then_expect_error(NotificationError::AlreadySent);
}
