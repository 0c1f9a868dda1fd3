use std::{convert::Infallible, time::Duration};

use domain::{
    envelope::StoredEvent,
    order::Order,
    stock::{Stock, StockEvent},
};
use event_store::{AppendError, ExecuteError, Expected, TRANSACTION_EVENTS_MAX, Transaction};

use crate::{connected, context, log, one, order_id, placed, receive, received};

#[tokio::test]
async fn a_transaction_over_several_aggregates_lands_next_to_one_another() {
    let (_server, store) = log().await;
    let id = order_id(7).to_string();
    let mut transaction = Transaction::new();
    transaction.push::<Stock>("TEA", Expected::NEW, &[received(1), received(2)], &context());
    transaction.push::<Order>(&id, Expected::NEW, &[placed()], &context());
    let appended = store.append(transaction).await.unwrap();
    assert_eq!((appended.first_position, appended.last_position), (1, 3));
    let tea = store.load::<Stock>("TEA").await.unwrap();
    assert_eq!((tea.aggregate.on_hand, tea.version, tea.position), (3, 2, 2));
    assert_eq!(store.load::<Order>(&id).await.unwrap().position, 3);
}

/// What is rarely needed on the way of an append or a load is boxed: the rest is part of every future that awaits one.
#[tokio::test]
async fn appends_and_loads_take_little_memory_before_they_begin() {
    let (_server, store) = log().await;
    let append = store.append(Transaction::new());
    assert!(size_of_val(&append) <= 3_072, "{} bytes for an append", size_of_val(&append));
    let load = store.load::<Order>("TEA");
    assert!(size_of_val(&load) <= 3_072, "{} bytes for a load", size_of_val(&load));
}

#[tokio::test]
async fn one_stale_member_leaves_nothing_of_the_transaction() {
    let (_server, store) = log().await;
    receive(&store, "TEA", 5).await;
    let mut transaction = Transaction::new();
    transaction.push::<Stock>("CUP", Expected::NEW, &[received(1)], &context());
    transaction.push::<Stock>("TEA", Expected::NEW, &[received(1)], &context());
    let refused = store.append(transaction).await.unwrap_err();
    assert_eq!(refused.moved(), Some(("stock", "TEA")));
    assert_eq!(store.load::<Stock>("CUP").await.unwrap().version, 0);
    assert_eq!(store.head().await.unwrap(), 1);
}

#[tokio::test]
async fn a_single_stale_append_conflicts() {
    let (_server, store) = log().await;
    let loaded = receive(&store, "TEA", 5).await;
    receive(&store, "TEA", 5).await;
    assert!(matches!(store.append(one("TEA", &loaded, 1)).await, Err(AppendError::Conflict { .. })));
}

#[tokio::test]
async fn the_same_transaction_twice_is_appended_once_and_answered_alike() {
    let (_server, store) = log().await;
    let loaded = receive(&store, "TEA", 5).await;
    for transaction in [one("TEA", &loaded, 1), {
        let mut several = one("CUP", &event_store::Loaded::default(), 1);
        several.push::<Stock>("POT", Expected::NEW, &[received(1)], &context());
        several
    }] {
        let first = store.append(transaction.clone()).await.unwrap();
        let second = store.append(transaction).await.unwrap();
        assert_eq!(first, second);
    }
    assert_eq!(store.head().await.unwrap(), 4);
}

#[tokio::test]
async fn racing_decisions_all_land_on_what_the_others_left() {
    let (_server, store) = log().await;
    let decisions = (0..8).map(|_| {
        let store = store.clone();
        async move {
            loop {
                let decided = store.execute::<Stock, Infallible>("TEA", &context(), |_| Ok(vec![received(1)])).await;
                match decided {
                    Ok(_) => return,
                    Err(ExecuteError::Conflict) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
        }
    });
    futures::future::join_all(decisions).await;
    let tea = store.load::<Stock>("TEA").await.unwrap();
    assert_eq!((tea.aggregate.on_hand, tea.version), (8, 8));
}

#[tokio::test]
async fn stored_bytes_are_one_cloud_event_in_one_line() {
    let (_server, store) = log().await;
    receive(&store, "TEA", 5).await;
    let mut reader = store.read_from(1);
    let message = reader.next_batch(10).await.unwrap().remove(0);
    assert!(!message.bytes.contains(&b'\n'));
    let stored = StoredEvent::from_json(&message.bytes).unwrap();
    assert_eq!(stored.to_json(), message.bytes);
    assert_eq!(stored.decode::<StockEvent>().unwrap(), received(5));
    assert_eq!(stored.metadata.version, 1);
}

#[tokio::test]
async fn what_cannot_be_a_subject_or_is_too_large_is_refused_before_it_is_sent() {
    let (_server, store) = log().await;
    for id in ["a.b", "*", ">", "a b", ""] {
        let mut transaction = Transaction::new();
        transaction.push::<Stock>(id, Expected::NEW, &[received(1)], &context());
        assert!(matches!(store.append(transaction).await, Err(AppendError::Invalid(_))), "{id:?}");
    }
    let mut transaction = Transaction::new();
    transaction.push::<Stock>("TEA", Expected::NEW, &vec![received(1); TRANSACTION_EVENTS_MAX + 1], &context());
    assert!(matches!(store.append(transaction).await, Err(AppendError::Invalid(_))));
    let mut transaction = one("TEA", &event_store::Loaded::default(), 1);
    transaction.extend(one("TEA", &event_store::Loaded::default(), 1));
    assert!(matches!(store.append(transaction).await, Err(AppendError::Invalid(_))));
    assert_eq!(store.head().await.unwrap(), 0);
}

#[tokio::test]
async fn the_largest_transaction_is_appended() {
    let (_server, store) = log().await;
    let mut transaction = Transaction::new();
    transaction.push::<Stock>("TEA", Expected::NEW, &vec![received(1); TRANSACTION_EVENTS_MAX], &context());
    let appended = store.append(transaction).await.unwrap();
    assert_eq!(appended.last_position, TRANSACTION_EVENTS_MAX as u64);
}

#[tokio::test]
async fn an_append_while_the_server_is_killed_lands_once_or_says_that_it_does_not_know() {
    let (mut server, store) = log().await;
    let writer = {
        let store = store.clone();
        tokio::spawn(async move {
            let mut acknowledged = Vec::new();
            for number in 0..400_u32 {
                let sku = format!("SKU-{number}");
                let appended = store.append(one(&sku, &event_store::Loaded::default(), 1)).await;
                if let Ok(appended) = appended {
                    acknowledged.push((sku, appended.first_position));
                }
            }
            acknowledged
        })
    };
    for _ in 0..2 {
        tokio::time::timeout(Duration::from_secs(10), store.read_from(20).next_batch(1)).await.unwrap().unwrap();
        server.kill();
        server.start_again().unwrap();
    }
    let acknowledged = writer.await.unwrap();
    for (sku, position) in &acknowledged {
        let events = store.events_of("stock", sku).await.unwrap();
        assert_eq!(events.len(), 1, "{sku} once");
        assert_eq!(events[0].position, *position, "{sku} where it was said to be");
    }
    assert!(acknowledged.len() > 300, "only {} of 400 were acknowledged", acknowledged.len());
}

#[tokio::test]
async fn without_a_server_an_append_gives_up_in_bounded_time() {
    let (mut server, store) = log().await;
    server.kill();
    let appended = tokio::time::timeout(Duration::from_secs(20), store.append(one("TEA", &event_store::Loaded::default(), 1)));
    assert!(matches!(appended.await.unwrap(), Err(AppendError::Unavailable)));
}

#[tokio::test]
async fn transactions_that_wait_together_land_together_and_each_gets_its_own_positions() {
    let (_server, store) = log().await;
    let appends = (0..300).map(|number| {
        let store = store.clone();
        async move {
            let (sku, other) = (format!("SKU-{number}"), format!("OTHER-{number}"));
            let mut transaction = one(&sku, &event_store::Loaded::default(), 1);
            if number % 3 == 0 {
                transaction.push::<Stock>(&other, Expected::NEW, &[received(1), received(2)], &context());
            }
            (sku, store.append(transaction).await.unwrap())
        }
    });
    let mut taken = std::collections::BTreeSet::new();
    for (sku, appended) in futures::future::join_all(appends).await {
        assert_eq!(store.load::<Stock>(&sku).await.unwrap().position, appended.first_position);
        for position in appended.first_position..=appended.last_position {
            assert!(taken.insert(position), "{position} was given out twice");
        }
    }
    assert_eq!(taken, (1..=500).collect());
}

#[tokio::test]
async fn a_conflicting_member_of_a_round_gets_its_conflict_and_the_others_land() {
    let (_server, store) = log().await;
    for number in (0..200).step_by(10) {
        receive(&store, &format!("SKU-{number}"), 1).await;
    }
    let appends = (0..200).map(|number| {
        let store = store.clone();
        async move { (number, store.append(one(&format!("SKU-{number}"), &event_store::Loaded::default(), 1)).await) }
    });
    for (number, appended) in futures::future::join_all(appends).await {
        match appended {
            Ok(_) => assert_ne!(number % 10, 0, "SKU-{number} had moved"),
            Err(AppendError::Conflict { subject }) => {
                assert_eq!(number % 10, 0, "SKU-{number} had not moved");
                assert_eq!(subject, format!("events.stock.SKU-{number}"));
            }
            Err(error) => panic!("SKU-{number}: {error}"),
        }
    }
    assert_eq!(store.head().await.unwrap(), 200);
}

/// What a store has seen last may be out of date where another process has moved on; the log has the last word.
#[tokio::test]
async fn what_another_process_has_moved_leaves_the_batch_without_taking_the_others_along() {
    let (server, store) = log().await;
    // All that a batch touches is known, so that nothing but the refusal says that it is out of date.
    let mut known = Vec::new();
    for number in 0..100 {
        let pair = [format!("SKU-{number}"), format!("OTHER-{number}")];
        for sku in &pair {
            receive(&store, sku, 1).await;
        }
        known.push([store.load::<Stock>(&pair[0]).await.unwrap(), store.load::<Stock>(&pair[1]).await.unwrap()]);
    }
    let other = connected(server.url()).await;
    for number in [30, 60] {
        receive(&other, &format!("SKU-{number}"), 1).await;
    }
    let before = store.append_stats();
    let appends = known.iter().enumerate().map(|(number, [known, other])| {
        let store = store.clone();
        async move {
            let mut transaction = one(&format!("OTHER-{number}"), other, 1);
            transaction.push::<Stock>(&format!("SKU-{number}"), known.expected(), &[received(1)], &context());
            (number, store.append(transaction).await)
        }
    });
    for (number, appended) in futures::future::join_all(appends).await {
        match appended {
            Ok(_) => assert!(![30, 60].contains(&number), "SKU-{number} had moved"),
            Err(error @ AppendError::Conflict { .. }) => {
                assert!([30, 60].contains(&number), "SKU-{number} had not moved");
                assert_eq!(error.moved(), Some(("stock", format!("SKU-{number}").as_str())));
            }
            Err(error) => panic!("SKU-{number}: {error}"),
        }
    }
    let (after, moved) = (store.append_stats(), 2);
    let refused = after.batches_refused - before.batches_refused;
    assert!((1..=moved).contains(&refused), "{refused} batches were refused: {after:?}");
}

/// What a caller did not hear of has landed all the same, and is no conflict when it is sent again, however far its aggregates are by then.
#[tokio::test]
async fn what_has_landed_is_found_though_its_aggregates_have_moved_on() {
    let (server, store) = log().await;
    let mut transaction = one("CUP", &event_store::Loaded::default(), 1);
    transaction.push::<Stock>("POT", Expected::NEW, &[received(1)], &context());
    let first = store.append(transaction.clone()).await.unwrap();
    for sku in ["CUP", "POT", "POT"] {
        receive(&store, sku, 1).await;
    }
    for store in [&store, &connected(server.url()).await] {
        assert_eq!(store.append(transaction.clone()).await.unwrap(), first);
    }
    assert_eq!(store.head().await.unwrap(), 5);
}

#[tokio::test]
async fn of_rivals_for_one_aggregate_exactly_one_lands() {
    let (_server, store) = log().await;
    let appends = (0..64).map(|number| {
        let store = store.clone();
        // Enough company that the rivals share rounds with others.
        let sku = if number % 2 == 0 { "TEA".to_owned() } else { format!("SKU-{number}") };
        async move { (number, store.append(one(&sku, &event_store::Loaded::default(), 1)).await) }
    });
    let outcomes = futures::future::join_all(appends).await;
    let landed = |even: bool| outcomes.iter().filter(|(number, outcome)| (number % 2 == 0) == even && outcome.is_ok()).count();
    assert_eq!((landed(true), landed(false)), (1, 32));
}

#[tokio::test]
async fn rivals_with_the_same_event_id_and_different_events_are_told_apart() {
    let (_server, store) = log().await;
    let mut context = context();
    context.event_id = Some(uuid::Uuid::from_u128(7));
    let (first, second) = {
        let mut transactions = [1, 2].map(|quantity| {
            let mut transaction = Transaction::new();
            transaction.push::<Stock>("TEA", Expected::NEW, &[received(quantity)], &context);
            transaction
        });
        (std::mem::take(&mut transactions[0]), std::mem::take(&mut transactions[1]))
    };
    store.append(first).await.unwrap();
    assert!(matches!(store.append(second).await, Err(AppendError::Conflict { .. })));
}

#[tokio::test]
async fn an_event_that_the_server_would_not_take_is_refused_and_the_others_land() {
    let (_server, store) = log().await;
    // More than the server's limit of one message.
    let mut huge = received(1);
    if let StockEvent::Received(received) = &mut huge {
        received.reference = "x".repeat(2 * 1024 * 1024);
    }
    let appends = (0..40).map(|number| {
        let (store, huge) = (store.clone(), huge.clone());
        async move {
            let mut transaction = one(&format!("SKU-{number}"), &event_store::Loaded::default(), 1);
            if number == 20 {
                transaction.push::<Stock>("HUGE", Expected::NEW, &[huge], &context());
            }
            (number, store.append(transaction).await)
        }
    });
    for (number, outcome) in futures::future::join_all(appends).await {
        match outcome {
            Ok(_) => assert_ne!(number, 20),
            Err(AppendError::Invalid(_)) => assert_eq!(number, 20),
            Err(error) => panic!("SKU-{number}: {error}"),
        }
    }
}

#[tokio::test]
async fn more_than_may_wait_are_turned_away_and_the_others_are_answered_in_bounded_time() {
    let (mut server, store) = log().await;
    server.kill();
    let append = |number: usize| {
        let store = store.clone();
        tokio::spawn(async move { store.append(one(&format!("SKU-{number}"), &event_store::Loaded::default(), 1)).await })
    };
    let appends: Vec<_> = (0..9_000).map(append).collect();
    let outcomes = tokio::time::timeout(Duration::from_secs(20), futures::future::join_all(appends)).await.unwrap();
    let overloaded = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Err(AppendError::Overloaded)))).count();
    let unavailable = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Err(AppendError::Unavailable)))).count();
    assert_eq!((overloaded, unavailable), (9_000 - 4_096, 4_096));
    let stats = store.append_stats();
    assert_eq!((stats.overloaded, stats.unavailable), (9_000 - 4_096, 4_096));
}

#[tokio::test]
async fn what_waits_is_bounded_in_bytes_as_well() {
    let (mut server, store) = log().await;
    server.kill();
    let mut large = received(1);
    if let StockEvent::Received(received) = &mut large {
        received.reference = "x".repeat(900 * 1024);
    }
    let append = |number: usize| {
        let (store, large) = (store.clone(), large.clone());
        tokio::spawn(async move {
            let mut transaction = Transaction::new();
            transaction.push::<Stock>(&format!("SKU-{number}"), Expected::NEW, &[large], &context());
            store.append(transaction).await
        })
    };
    let appends: Vec<_> = (0..100).map(append).collect();
    let outcomes = tokio::time::timeout(Duration::from_secs(20), futures::future::join_all(appends)).await.unwrap();
    let overloaded = outcomes.iter().filter(|outcome| matches!(outcome, Ok(Err(AppendError::Overloaded)))).count();
    // 64 MiB hold 70 of them.
    assert!((25..=32).contains(&overloaded), "{overloaded} of 100 were turned away");
}
