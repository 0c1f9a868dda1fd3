//! Who goes when, by what has come and what was answered.

use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::transaction::PreparedEvent;

/// A transaction on aggregates that are named by numbers, each with an event of so many bytes.
fn member(subjects: &[u64], expected: u64, bytes: usize) -> Member {
    let event = |subject: &u64| PreparedEvent {
        subject: format!("events.stock.{subject}").into(),
        subject_hash: *subject,
        event_id: Uuid::nil(),
        expected: Some(expected),
        payload: Bytes::from(vec![b'x'; bytes]),
        trace: None,
    };
    let (events, now): (Vec<_>, _) = (subjects.iter().map(event).collect(), Instant::now());
    Member { bytes: bytes * events.len(), events, came: now, deadline: now, unsure: false, _slots: None }
}

fn waits(queue: &mut Queue, subjects: &[u64]) -> oneshot::Receiver<Result<Appended, AppendError>> {
    match queue.admit(member(subjects, 0, 10), Instant::now()) {
        Admission::Wait(outcome) => outcome,
        other => panic!("{subjects:?} does not wait: {other:?}"),
    }
}

fn goes(queue: &mut Queue, subject: u64) -> Member {
    match queue.admit(member(&[subject], 0, 10), Instant::now()) {
        Admission::Go(member) => member,
        other => panic!("{subject} does not go: {other:?}"),
    }
}

fn subjects(members: &[Waiting]) -> Vec<u64> {
    members.iter().flat_map(|waiting| waiting.member.expectations()).map(|(subject, _)| subject).collect()
}

const fn at(position: u64) -> Appended {
    Appended { first_position: position, last_position: position }
}

#[test]
fn alone_a_transaction_goes_at_once() {
    let mut queue = Queue::new(Instant::now());
    for subject in 0..3 {
        let member = goes(&mut queue, subject);
        queue.settle(&member, &Ok(at(subject + 1)), Instant::now());
        queue.plain_landed();
    }
    assert!(!queue.may_take());
}

#[test]
fn what_touches_an_aggregate_in_flight_waits_and_is_overtaken_by_others_only() {
    let mut queue = Queue::new(Instant::now());
    let first = goes(&mut queue, 1);
    let _outcomes = [waits(&mut queue, &[1, 2]), waits(&mut queue, &[2]), waits(&mut queue, &[3, 4])];
    queue.plain_landed();
    let round = queue.take(Instant::now());
    assert_eq!((subjects(&round.batch), subjects(&round.plains)), (vec![3, 4], vec![]));
    assert!(!queue.may_take());
    queue.settle(&first, &Ok(at(7)), Instant::now());
    queue.batch_landed(0, Instant::now());
    let round = queue.take(Instant::now());
    // It expects nothing on 1, where there is an event now; what came after it is free to go.
    assert_eq!((subjects(&round.stale), subjects(&round.plains)), (vec![1, 2], vec![2]));
}

#[test]
fn what_expects_less_than_is_known_is_looked_up() {
    let mut queue = Queue::new(Instant::now());
    queue.known.saw(1, 9);
    assert!(matches!(queue.admit(member(&[1], 8, 10), Instant::now()), Admission::Look(_)));
    assert!(matches!(queue.admit(member(&[1], 9, 10), Instant::now()), Admission::Go(_)));
    assert!(matches!(queue.admit(member(&[2, 1], 8, 10), Instant::now()), Admission::Look(_)));
}

#[test]
fn many_go_together_and_no_more_than_the_server_takes() {
    let mut queue = Queue::new(Instant::now());
    let _outcomes: Vec<_> = (0..800).map(|number| waits(&mut queue, &[2 * number, 2 * number + 1])).collect();
    let (first, second) = (queue.take(Instant::now()), queue.take(Instant::now()));
    for round in [&first, &second] {
        assert!((500..=1_000).contains(&events_of(&round.batch)), "{}", events_of(&round.batch));
        assert!(round.plains.is_empty() && round.stale.is_empty());
    }
    assert_eq!(subjects(&first.batch)[..4], [0, 1, 2, 3]);
}

#[test]
fn large_ones_do_not_go_together() {
    let mut queue = Queue::new(Instant::now());
    let large = |queue: &mut Queue, subject| queue.admit(member(&[subject, subject + 1], 0, 1024 * 1024), Instant::now());
    let _outcomes: Vec<_> = (0..4).map(|number| large(&mut queue, 2 * number)).collect();
    assert_eq!(subjects(&queue.take(Instant::now()).batch), [0, 1, 2, 3]);
}

#[test]
fn who_does_not_wait_any_more_is_left_out() {
    let mut queue = Queue::new(Instant::now());
    let (gone, here) = (waits(&mut queue, &[1, 2]), waits(&mut queue, &[3, 4]));
    drop(gone);
    assert_eq!(subjects(&queue.take(Instant::now()).batch), [3, 4]);
    drop(here);
}

#[test]
fn in_a_crowd_a_single_one_waits_for_the_others() {
    let now = Instant::now();
    let mut queue = Queue::new(now);
    let _outcomes: Vec<_> = (0..100).map(|number| waits(&mut queue, &[2 * number, 2 * number + 1])).collect();
    let round = queue.take(now);
    for waiting in &round.batch {
        queue.settle(&waiting.member, &Ok(at(1)), now);
    }
    queue.batch_landed(0, Instant::now());
    let _outcome = waits(&mut queue, &[1_000]);
    assert!(queue.may_take() && !queue.is_complete());
    // Nobody else came: now it is alone, and the next one is again.
    assert_eq!(subjects(&queue.take(now).plains), [1_000]);
    queue.plain_landed();
    goes(&mut queue, 1_001);
}

#[test]
fn where_conflicts_are_frequent_they_are_looked_for_until_they_are_not() {
    let mut queue = Queue::new(Instant::now());
    assert!(!queue.is_conflict_likely(256));
    queue.saw_conflicts(3, 256);
    assert!(queue.is_conflict_likely(256) && !queue.is_conflict_likely(16));
    for _ in 0..10 {
        queue.saw_conflicts(0, 256);
    }
    assert!(!queue.is_conflict_likely(256));
}
