//! Every version of every event that was ever stored is in the catalogue, and the committed files are up to date.

use std::{collections::BTreeSet, error::Error as _};

use domain::{EventPayload, notification::NotificationEvent, order::OrderEvent, payment::PaymentEvent, stock::StockEvent};

use crate::validator::golden_types;

fn catalogued() -> BTreeSet<String> {
    let documents = catalogue::documents().unwrap();
    documents.keys().filter_map(|name| name.strip_suffix(".schema.json")).map(str::to_owned).collect()
}

#[test]
fn the_committed_files_are_what_the_types_say() {
    match catalogue::difference() {
        Ok(None) => {}
        Ok(Some(difference)) => panic!("{difference}"),
        Err(error) => panic!("{error}: {}; a new event needs its golden file first", error.source().unwrap()),
    }
}

#[test]
fn every_stored_version_has_a_schema_and_every_schema_a_stored_version() {
    assert_eq!(catalogued(), golden_types(), "left: what the catalogue has; right: the golden files of domain");
}

#[test]
fn what_is_written_today_is_in_the_catalogue_and_the_rest_of_it_is_marked_as_old() {
    let documents = catalogue::documents().unwrap();
    let is_old = |name: &String| documents[&format!("{name}.schema.json")].contains("\"deprecated\": true");
    let current = [OrderEvent::EVENT_TYPES, StockEvent::EVENT_TYPES, PaymentEvent::EVENT_TYPES, NotificationEvent::EVENT_TYPES];
    let current: BTreeSet<String> = current.concat().into_iter().map(str::to_owned).collect();
    let not_old: BTreeSet<String> = catalogued().into_iter().filter(|name| !is_old(name)).collect();
    assert_eq!(not_old, current);
    assert_eq!(catalogued().difference(&current).collect::<Vec<_>>(), ["contrail.stock.received.v0"]);
}

#[test]
fn the_same_types_give_the_same_files() {
    assert_eq!(catalogue::documents().unwrap(), catalogue::documents().unwrap());
}
