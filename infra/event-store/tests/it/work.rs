use std::{collections::BTreeMap, time::Duration};

use domain::order::Order;
use event_store::{Beginning, DeadLetter, Expected, Redriven, Sharing, Transaction, WorkQueueOptions, WorkSource};

use crate::{
    NOW, connected, context, log, order_id, placed,
    proxy::{Fault, Proxy},
    receive,
};

const OPTIONS: WorkQueueOptions = WorkQueueOptions {
    name: "tester",
    source: WorkSource::Log(&["stock"]),
    takes_redrives: true,
    beginning: Beginning::First,
    ack_wait: Duration::from_secs(1),
    in_flight_max: 100,
    parked_max: 0,
    sharing: Sharing::All,
};

#[tokio::test]
async fn an_item_comes_again_until_it_is_done() {
    let (_server, store) = log().await;
    receive(&store, "TEA", 1).await;
    let mut queue = store.work_queue(OPTIONS);
    let first = queue.next_batch(10).await.remove(0);
    assert_eq!((first.position, first.deliveries), (1, 1));
    drop(first);
    let again = queue.next_batch(10).await.remove(0);
    assert_eq!((again.position, again.deliveries), (1, 2));
    again.again_after(Duration::ZERO).await;
    let third = queue.next_batch(10).await.remove(0);
    assert_eq!(third.deliveries, 3);
    third.done().await;
    let nothing = tokio::time::timeout(Duration::from_millis(1_500), queue.next_batch(10)).await;
    assert!(nothing.is_err(), "what is done does not come again");
}

#[tokio::test]
async fn nothing_is_handed_out_of_a_log_that_is_being_restored() {
    let (server, store) = log().await;
    receive(&store, "TEA", 1).await;
    let jetstream = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let mut config = jetstream.get_stream("EVENTS").await.unwrap().cached_info().config.clone();
    config.metadata.insert("contrail-restoring".to_owned(), "true".to_owned());
    jetstream.update_stream(&config).await.unwrap();
    let mut queue = store.work_queue(OPTIONS);
    let nothing = tokio::time::timeout(Duration::from_millis(700), queue.next_batch(10)).await;
    assert!(nothing.is_err(), "{nothing:?}");
    assert_eq!(store.backlog(OPTIONS.name, OPTIONS.source).await.unwrap(), None, "nor is a queue made");
    config.metadata.remove("contrail-restoring");
    jetstream.update_stream(&config).await.unwrap();
    assert_eq!(queue.next_batch(10).await.remove(0).position, 1);
}

#[tokio::test]
async fn what_was_handed_back_for_a_while_does_not_hold_up_the_others() {
    const FEW: WorkQueueOptions = WorkQueueOptions { in_flight_max: 4, parked_max: 100, ..OPTIONS };
    let (_server, store) = log().await;
    for _ in 0..20 {
        receive(&store, "TEA", 1).await;
    }
    let mut queue = store.work_queue(FEW);
    let mut positions = Vec::new();
    while positions.len() < 20 {
        let items = tokio::time::timeout(Duration::from_secs(10), queue.next_batch(10)).await.expect("the others come");
        for item in items {
            positions.push(item.position);
            item.again_after(Duration::from_secs(60)).await;
        }
    }
    assert_eq!(positions, (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn what_is_at_hand_comes_without_waiting_and_in_order() {
    let (_server, store) = log().await;
    let mut queue = store.work_queue(OPTIONS);
    assert!(queue.at_hand(10).is_empty(), "it has not been opened");
    receive(&store, "TEA", 1).await;
    let mut positions: Vec<_> = queue.next_batch(10).await.iter().map(|item| item.position).collect();
    assert!(queue.at_hand(10).is_empty(), "there is no other one");
    for _ in 0..20 {
        receive(&store, "TEA", 1).await;
    }
    while positions.len() < 21 {
        let items = queue.at_hand(3);
        assert!(items.len() <= 3);
        positions.extend(items.iter().map(|item| item.position));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(positions, (1..=21).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_backlog_is_what_is_not_done_and_since_when() {
    const BOTH: WorkQueueOptions = WorkQueueOptions {
        source: WorkSource::Log(&["order", "stock"]),
        in_flight_max: 2,
        ack_wait: Duration::from_secs(60),
        ..OPTIONS
    };
    let (server, store) = log().await;
    assert_eq!(store.backlog(BOTH.name, BOTH.source).await.unwrap(), None, "nobody has opened it yet");
    let mut transaction = Transaction::new();
    transaction.push::<Order>(&order_id(1).to_string(), Expected::default(), &[placed()], &context());
    store.append(transaction).await.unwrap();
    for _ in 0..2 {
        receive(&store, "TEA", 1).await;
    }
    let log = async_nats::jetstream::new(async_nats::connect(server.url()).await.unwrap()).get_stream("EVENTS").await.unwrap();
    let backlog = async || store.backlog(BOTH.name, BOTH.source).await.unwrap().unwrap();
    let mut queue = store.work_queue(BOTH);
    let mut items = queue.next_batch(2).await;
    while items.len() < 2 {
        items.extend(queue.next_batch(2).await);
    }
    let found = backlog().await;
    assert_eq!((found.events(), found.waiting, found.in_hand), (3, 1, 2));
    assert_eq!(found.oldest, Some(log.get_raw_message(1).await.unwrap().time));
    // Acknowledgements are not answered, so they are seen a moment later.
    let until_oldest_is = async |expected| {
        while backlog().await.oldest != expected {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    items.remove(0).done().await;
    until_oldest_is(Some(log.get_raw_message(2).await.unwrap().time)).await;
    items.remove(0).done().await;
    queue.next_batch(2).await.remove(0).done().await;
    until_oldest_is(None).await;
    assert_eq!(backlog().await.events(), 0);
}

#[tokio::test]
async fn what_a_closed_queue_had_fetched_comes_to_the_next_one_without_waiting_for_the_time_out() {
    const PATIENT: WorkQueueOptions = WorkQueueOptions { ack_wait: Duration::from_secs(60), ..OPTIONS };
    let (_server, store) = log().await;
    for _ in 0..20 {
        receive(&store, "TEA", 1).await;
    }
    let mut first = store.work_queue(PATIENT);
    let taken = first.next_batch(1).await;
    // Let the rest arrive in the first queue's hands: it was delivered when the second queue gets nothing.
    let mut second = store.work_queue(PATIENT);
    let nothing = tokio::time::timeout(Duration::from_millis(300), second.next_batch(1)).await;
    assert!(nothing.is_err(), "the first queue holds all of them");
    first.close().await;
    for item in taken {
        item.hand_back().await;
    }
    let mut seen = std::collections::BTreeSet::new();
    while seen.len() < 20 {
        let items = tokio::time::timeout(Duration::from_secs(10), second.next_batch(100)).await;
        for item in items.expect("what was handed back comes") {
            seen.insert(item.position);
            item.done().await;
        }
    }
}

#[tokio::test]
async fn one_instance_is_active_and_a_standby_takes_over_when_it_ends_or_falls_silent() {
    const ONE: WorkQueueOptions = WorkQueueOptions { sharing: Sharing::OneActive, ..OPTIONS };
    let (_server, store) = log().await;
    let mut active = store.work_queue(ONE);
    let mut standby = store.work_queue(ONE);
    receive(&store, "TEA", 1).await;
    active.next_batch(10).await.remove(0).done().await;
    for _ in 0..5 {
        receive(&store, "TEA", 1).await;
        let items = tokio::select! {
            biased;
            items = active.next_batch(10) => items,
            items = standby.next_batch(10) => panic!("the standby was handed {items:?}"),
        };
        for item in items {
            item.done().await;
        }
    }
    // It says that it ends: the standby need not wait.
    active.close().await;
    receive(&store, "TEA", 1).await;
    let items = tokio::time::timeout(Duration::from_secs(2), standby.next_batch(10)).await.expect("it is handed out at once");
    assert_eq!(items.len(), 1);
    for item in items {
        item.done().await;
    }
    // It is gone without a word, as after SIGKILL, with an event in hand.
    receive(&store, "TEA", 1).await;
    let lost = standby.next_batch(10).await;
    drop((lost, standby));
    let mut third = store.work_queue(ONE);
    let again = tokio::time::timeout(Duration::from_secs(10), third.next_batch(10)).await.expect("somebody takes over");
    assert_eq!((again.len(), again[0].deliveries), (1, 2));
}

#[tokio::test]
async fn a_queue_of_an_older_release_is_brought_up_to_date_and_goes_on_where_it_was() {
    const OLD: WorkQueueOptions = WorkQueueOptions { ack_wait: Duration::from_secs(30), in_flight_max: 10, ..OPTIONS };
    const NEW: WorkQueueOptions = WorkQueueOptions { sharing: Sharing::OneActive, ..OPTIONS };
    for (before, after) in [(OLD, NEW), (NEW, OLD)] {
        let (_server, store) = log().await;
        receive(&store, "TEA", 1).await;
        let mut old = store.work_queue(before);
        old.next_batch(10).await.remove(0).done().await;
        // It waits for more while the new release starts beside it.
        let waits = tokio::time::timeout(Duration::from_millis(100), old.next_batch(10)).await;
        assert!(waits.is_err());
        let mut new = store.work_queue(after);
        let waits = tokio::time::timeout(Duration::from_millis(300), new.next_batch(10)).await;
        assert!(waits.is_err(), "what was done does not come again");
        old.close().await;
        receive(&store, "TEA", 1).await;
        let items = tokio::time::timeout(Duration::from_secs(10), new.next_batch(10)).await.expect("the new queue works");
        assert_eq!(items[0].position, 2);
    }
}

#[tokio::test]
async fn a_queue_goes_on_after_the_server_was_killed() {
    let (mut server, store) = log().await;
    let mut queue = store.work_queue(OPTIONS);
    receive(&store, "TEA", 1).await;
    queue.next_batch(10).await.remove(0).done().await;
    server.kill();
    server.start_again().unwrap();
    receive(&store, "TEA", 1).await;
    let next = tokio::time::timeout(Duration::from_secs(10), async {
        loop {
            let item = queue.next_batch(1).await.remove(0);
            // The acknowledgement of the first may have been lost with the server.
            if item.position == 2 {
                return item;
            }
            item.done().await;
        }
    });
    next.await.expect("the queue found the new server");
}

#[tokio::test]
async fn what_was_fetched_before_a_connection_broke_is_not_left_until_the_time_out() {
    const PATIENT: WorkQueueOptions = WorkQueueOptions { ack_wait: Duration::from_secs(60), ..OPTIONS };
    let (server, direct) = log().await;
    let proxy = Proxy::before(server.port()).await;
    let store = connected(proxy.url()).await;
    for _ in 0..20 {
        receive(&direct, "TEA", 1).await;
    }
    let mut queue = store.work_queue(PATIENT);
    let mut taken = queue.next_batch(1).await;
    // Let the rest arrive in the queue's hands: it was delivered when another one gets nothing.
    let nothing = tokio::time::timeout(Duration::from_millis(300), direct.work_queue(PATIENT).next_batch(1)).await;
    assert!(nothing.is_err(), "the first queue holds all of them");
    proxy.inflict(Fault::Cut);
    while store.is_connected() {
        tokio::task::yield_now().await;
    }
    while !store.is_connected() {
        tokio::task::yield_now().await;
    }
    while taken.len() < 20 {
        let items = tokio::time::timeout(Duration::from_secs(10), queue.next_batch(7)).await;
        let items = items.expect("what was fetched comes");
        assert!(items.len() <= 7);
        taken.extend(items);
    }
    assert!(taken.iter().map(|item| (item.position, item.deliveries)).eq((1..=20).map(|position| (position, 1))));
    for item in taken {
        item.done().await;
    }
    while direct.backlog(PATIENT.name, PATIENT.source).await.unwrap().unwrap().events() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn letter(position: u64) -> DeadLetter {
    DeadLetter {
        reactor: "tester".to_owned(),
        position,
        event_type: "contrail.stock.received.v1".to_owned(),
        aggregate_id: Some("TEA".to_owned()),
        correlation_id: None,
        error_chain: vec!["it cannot be done".to_owned()],
        attempts: 3,
        redrives: 0,
        first_died_at: None,
        died_at: NOW,
    }
}

#[tokio::test]
async fn a_dead_letter_is_kept_once_until_it_is_replaced_removed_or_discarded() {
    let (server, store) = log().await;
    assert_eq!(store.dead_letters().await.unwrap(), []);
    for position in [3, 1, 1, 2] {
        store.put_dead_letter(&letter(position)).await.unwrap();
    }
    let letters = async || store.dead_letters().await.unwrap().into_iter().map(|kept| kept.letter).collect::<Vec<_>>();
    assert_eq!(letters().await, [1, 2, 3].map(letter));
    assert_eq!(store.count_dead_letters().await.unwrap(), BTreeMap::from([("tester".to_owned(), 3)]));

    let kept = store.dead_letters().await.unwrap();
    let redriven = DeadLetter { attempts: 4, redrives: 1, ..letter(1) };
    // Cut short between its two steps, it leaves two; the later one counts.
    store.put_dead_letter(&redriven).await.unwrap();
    assert_eq!(letters().await, [redriven.clone(), letter(2), letter(3)]);
    store.replace_dead_letter(&kept[0], &redriven).await.unwrap();
    assert_eq!(letters().await, [redriven, letter(2), letter(3)]);
    assert_eq!(store.count_dead_letters().await.unwrap()["tester"], 3);

    let [first, second, third] = store.dead_letters().await.unwrap().try_into().unwrap();
    store.remove_dead_letter(&first).await.unwrap();
    store.remove_dead_letter(&first).await.unwrap();
    for _ in 0..2 {
        store.discard_dead_letter(&second, "a test", NOW).await.unwrap();
    }
    assert_eq!(store.dead_letters().await.unwrap(), std::slice::from_ref(&third));
    for _ in 0..2 {
        store.remove_dead_letter(&third).await.unwrap();
    }
    assert_eq!(store.dead_letters().await.unwrap(), []);
    let client = async_nats::connect(server.url()).await.unwrap();
    let mut stream = async_nats::jetstream::new(client).get_stream("DISCARDED_LETTERS").await.unwrap();
    assert_eq!(stream.info().await.unwrap().state.messages, 1);
    let discarded: serde_json::Value = serde_json::from_slice(&stream.get_raw_message(1).await.unwrap().payload).unwrap();
    assert_eq!((&discarded["position"], &discarded["reason"]), (&2.into(), &"a test".into()));
}

#[tokio::test]
async fn whoever_asks_for_an_event_again_is_told_what_became_of_it() {
    const PATIENCE: Duration = Duration::from_secs(1);
    let (_server, store) = log().await;
    let position = receive(&store, "TEA", 1).await.position;
    assert_eq!(store.redrive("tester", position, PATIENCE).await.unwrap(), Redriven::NobodyThere);
    let mut queue = store.work_queue(OPTIONS);
    queue.next_batch(1).await.remove(0).done().await;
    let asking = {
        let store = store.clone();
        tokio::spawn(async move {
            // Until the queue listens.
            let mut answers = Vec::new();
            while answers.len() < 5 {
                match store.redrive("tester", position, PATIENCE).await.unwrap() {
                    Redriven::NobodyThere => {}
                    answer => answers.push(answer),
                }
            }
            answers.push(store.redrive("tester", 99, PATIENCE).await.unwrap());
            answers
        })
    };
    let mut ask = async || queue.next_batch(10).await.remove(0);
    let item = ask().await;
    assert!(item.is_redriven() && item.is_in_its_place(&item.event().unwrap()), "{item:?}");
    assert_eq!((item.position, item.deliveries), (position, 2));
    // Longer than whoever asks would wait without a sign of life.
    for _ in 0..4 {
        tokio::time::sleep(PATIENCE / 2).await;
        item.in_progress().await;
    }
    item.done().await;
    ask().await.given_up(vec!["no".to_owned()], 2).await;
    ask().await.hand_back().await;
    ask().await.again_after(Duration::ZERO).await;
    drop(ask().await);
    let answers = tokio::select! {
        answers = asking => answers.unwrap(),
        _ = ask() => panic!("nobody has asked for that"),
    };
    let failed = Redriven::Failed { error_chain: vec!["no".to_owned()], attempts: 2 };
    assert_eq!(answers[..5], [Redriven::Done, failed, Redriven::NotNow, Redriven::NotNow, Redriven::NoAnswer]);
    let Redriven::Failed { error_chain, attempts: 0 } = &answers[5] else { panic!("{answers:?}") };
    assert_eq!(error_chain[0], "read the event at position 99");
}

#[tokio::test]
async fn the_log_refuses_to_forget() {
    let (server, store) = log().await;
    receive(&store, "TEA", 1).await;
    let client = async_nats::connect(server.url()).await.unwrap();
    let stream = async_nats::jetstream::new(client).get_stream("EVENTS").await.unwrap();
    assert!(stream.purge().await.is_err());
    assert!(stream.delete_message(1).await.is_err());
    store.set_up(Some(1)).await.unwrap();
    assert_eq!(store.head().await.unwrap(), 1, "setting up again changes nothing");
}
