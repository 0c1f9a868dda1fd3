//! Customers are told everything, once each; and nothing was given up on.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::Context as _;
use domain::NotificationId;
use domain::notification::Notification;
use event_store::DEAD_LETTER_STREAM;
use local_stack::StackInfo;

use super::log::LogFold;
use super::violations::Violations;
use crate::log_server;

/// The one channel.
const CHANNEL: &str = "email";

/// One notification for each event that a customer is told of, and one file for each notification.
pub(super) fn check(log: &LogFold, folder: &Path, violations: &mut Violations) -> anyhow::Result<()> {
    let expected: BTreeSet<String> =
        log.told_of.iter().map(|event_id| NotificationId::derive(*event_id, CHANNEL).to_string()).collect();
    let recorded: BTreeSet<String> = log.notifications.keys().cloned().collect();
    let unsent = log.notifications.iter().filter(|(_, notification)| **notification != Notification::Sent);
    for (id, notification) in unsent {
        violations.add("mail", format!("notification {id} is {notification:?}"));
    }
    for id in expected.difference(&recorded) {
        violations.add("mail", format!("notification {id} is due and was not sent"));
    }
    for id in recorded.difference(&expected) {
        violations.add("mail", format!("notification {id} was sent and is about nothing"));
    }
    let entries = fs::read_dir(folder).with_context(|| format!("list {}", folder.display()))?;
    let files: Vec<String> = entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    let in_folder: BTreeSet<String> = files
        .iter()
        .filter(|name| !name.starts_with('.'))
        .filter_map(|name| name.strip_suffix(".eml"))
        .map(str::to_owned)
        .collect();
    for id in recorded.difference(&in_folder) {
        violations.add("mail", format!("notification {id} is recorded and has no file"));
    }
    for id in in_folder.difference(&recorded) {
        violations.add("mail", format!("the file {id}.eml belongs to no notification"));
    }
    Ok(())
}

/// No reactor has put an event aside.
pub(super) async fn check_dead_letters(info: &StackInfo, violations: &mut Violations) -> anyhow::Result<()> {
    let stream = log_server::connect(info).await?.get_stream(DEAD_LETTER_STREAM).await.context("look at the dead letters")?;
    let letters = stream.cached_info().state.messages;
    violations.require(letters == 0, "dead letters", || format!("there are {letters}"));
    Ok(())
}
