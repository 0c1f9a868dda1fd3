//! Who goes when, by what has come and what was answered.

use bytes::Bytes;
use uuid::Uuid;

use super::*;
use crate::transaction::PreparedEvent;

type Receiver = oneshot::Receiver<Result<Appended, AppendError>>;

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

fn waits(queue: &mut Queue, subjects: &[u64]) -> Receiver {
    match queue.admit(member(subjects, 0, 10), Instant::now()) {
        Admission::Wait(outcome) => outcome,
        other => panic!("{subjects:?} does not wait: {other:?}"),
    }
}

/// Takes a round with who is here.
fn takes(queue: &mut Queue, now: Instant) -> Round {
    let round = queue.take(now);
    if round.is_open {
        queue.close(now);
        queue.commit_answered(false, now);
    }
    round
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
    let round = takes(&mut queue, Instant::now());
    assert_eq!((subjects(&round.batch), subjects(&round.plains)), (vec![3, 4], vec![]));
    assert!(!queue.may_take());
    queue.settle(&first, &Ok(at(7)), Instant::now());
    queue.batch_landed(0, Instant::now());
    let round = takes(&mut queue, Instant::now());
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
    let (first, second) = (takes(&mut queue, Instant::now()), takes(&mut queue, Instant::now()));
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
    assert_eq!(subjects(&takes(&mut queue, Instant::now()).batch), [0, 1, 2, 3]);
}

#[test]
fn who_does_not_wait_any_more_is_left_out() {
    let mut queue = Queue::new(Instant::now());
    let (gone, here) = (waits(&mut queue, &[1, 2]), waits(&mut queue, &[3, 4]));
    drop(gone);
    assert_eq!(subjects(&takes(&mut queue, Instant::now()).batch), [3, 4]);
    drop(here);
}

#[test]
fn in_a_crowd_a_single_one_waits_for_the_others() {
    let now = Instant::now();
    let mut queue = Queue::new(now);
    let _outcomes: Vec<_> = (0..60).map(|number| waits(&mut queue, &[2 * number, 2 * number + 1])).collect();
    let round = takes(&mut queue, now);
    for waiting in &round.batch {
        queue.settle(&waiting.member, &Ok(at(1)), now);
    }
    queue.batch_landed(0, Instant::now());
    let _outcome = waits(&mut queue, &[1_000]);
    assert!(queue.may_take() && !queue.is_complete());
    // Nobody else came: now it is alone, and the next one is again.
    assert_eq!(subjects(&takes(&mut queue, now).plains), [1_000]);
    queue.plain_landed();
    goes(&mut queue, 1_001);
}

#[test]
fn where_conflicts_are_frequent_they_are_looked_for_until_they_are_not() {
    let mut queue = Queue::new(Instant::now());
    assert!(!queue.is_conflict_likely(256));
    for _ in 0..4 {
        assert!(!queue.is_conflict_likely(256), "a round that is refused once has its conflict named");
        queue.saw_conflicts(3, 256);
    }
    assert!(queue.is_conflict_likely(256) && !queue.is_conflict_likely(16));
    for _ in 0..10 {
        queue.saw_conflicts(0, 256);
    }
    assert!(!queue.is_conflict_likely(256));
}

/// Else a first guess that was wrong would have as many go together for ever.
#[test]
fn few_that_go_together_are_tried_as_plain_publishes() {
    let now = Instant::now();
    let mut queue = after_a_crowd(now);
    let few = queue.costs.plains_max().max(TRIAL_EVENTS_MIN - 1) + 1;
    assert!(few < 2 * TRIAL_EVENTS_MIN);
    let _outcomes: Vec<_> = (0..few as u64).map(|subject| waits(&mut queue, &[subject])).collect();
    let due = now + Duration::from_secs(1);
    let round = queue.take(due);
    assert_eq!((round.plains.len(), round.batch.len()), (TRIAL_EVENTS_MIN, 0));
    assert!(!queue.costs.is_trial_due(due));
}

/// A queue where so many went together just now that none goes at once by itself.
fn after_a_crowd(now: Instant) -> Queue {
    let mut queue = Queue::new(now);
    let first: Vec<_> = (0..60).map(|number| waits(&mut queue, &[1_000_000 + 2 * number, 1_000_001 + 2 * number])).collect();
    let round = takes(&mut queue, now);
    for waiting in &round.batch {
        queue.settle(&waiting.member, &Ok(at(1)), now);
    }
    queue.batch_landed(0, now);
    drop(first);
    queue
}

/// A queue with this many transactions waiting, each with an event on an aggregate of its own, and the batch that they began.
fn with_open_batch(count: u64, now: Instant) -> (Queue, Gathered, Vec<Receiver>) {
    let mut queue = after_a_crowd(now);
    queue.costs.trial_begins(TRIAL_EVENTS_MAX, true, now);
    let outcomes = (0..count).map(|subject| waits(&mut queue, &[subject])).collect();
    let round = queue.take(now);
    assert!(round.is_open && round.plains.is_empty());
    (queue, Gathered::new(round.batch, now), outcomes)
}

fn extend(queue: &mut Queue, batch: &mut Gathered, now: Instant) -> Next {
    let mut stale = Vec::new();
    let next = queue.extend(batch, &mut stale, now);
    assert!(stale.is_empty());
    next
}

#[test]
fn who_comes_while_a_batch_is_open_joins_it_unless_something_in_it_is_in_the_way() {
    let now = Instant::now();
    let (mut queue, mut batch, _outcomes) = with_open_batch(60, now);
    let _later = [waits(&mut queue, &[59]), waits(&mut queue, &[60])];
    assert!(!queue.may_take(), "another round is taken beside an open batch");
    assert_eq!(extend(&mut queue, &mut batch, now), Next::Send);
    assert_eq!((batch.members.len(), batch.events, queue.len()), (61, 61, 1));
    // Others were here before, and are likely to come back.
    assert_eq!(extend(&mut queue, &mut batch, now), Next::Look);
    let later = now + Duration::from_secs(1);
    assert_eq!(extend(&mut queue, &mut batch, later), Next::Commit { is_measured: true });
    queue.close(later);
    for waiting in &batch.members {
        queue.settle(&waiting.member, &Ok(at(1)), later);
    }
    queue.commit_answered(true, later);
    queue.batch_landed(0, later);
    assert!(queue.may_take());
    assert_eq!((queue.events_in_flight, queue.commits_in_flight), (0, 0));
}

#[test]
fn one_server_commits_one_batch_at_a_time_and_the_next_is_open_meanwhile() {
    for is_replicated in [false, true] {
        let now = Instant::now();
        let (mut queue, mut first, _outcomes) = with_open_batch(1_000, now);
        queue.costs.is_replicated = is_replicated;
        let later = now + Duration::from_millis(10);
        assert!(matches!(extend(&mut queue, &mut first, later), Next::Commit { .. }));
        queue.close(later);
        assert!(queue.may_take());
        let mut second = Gathered::new(queue.take(later).batch, later);
        second.members.truncate(400);
        second.events = 400;
        let next = extend(&mut queue, &mut second, later + Duration::from_secs(1));
        assert!(!second.is_held, "there is enough for two batches: one is staged while the other is committed");
        if is_replicated {
            assert!(matches!(next, Next::Commit { .. }), "{next:?}");
            continue;
        }
        assert_eq!(next, Next::Sleep);
        assert!(!queue.is_to_be_woken());
        let _more: Vec<_> = (1_000..1_064).map(|subject| waits(&mut queue, &[subject])).collect();
        assert!(queue.is_to_be_woken());
        assert!(!queue.is_to_be_woken(), "woken twice for the same");
        queue.commit_answered(true, later);
        // It is worth its commit, and does not wait for those who come back from the first.
        while extend(&mut queue, &mut second, later) == Next::Send {}
        assert!(matches!(extend(&mut queue, &mut second, later), Next::Commit { .. }));
    }
}

#[test]
fn a_crowd_that_goes_as_one_leaves_a_few_who_begin_the_next_batch_when_it_is_answered() {
    let now = Instant::now();
    let (mut queue, mut first, _outcomes) = with_open_batch(256, now);
    assert!(matches!(extend(&mut queue, &mut first, now), Next::Commit { .. }));
    assert_eq!((first.events, first.is_held, queue.len()), (254, false, 2));
    queue.close(now);
    assert!(queue.may_take(), "the next batch is not begun while the first is at its commit");
    let mut second = Gathered::new(queue.take(now).batch, now);
    assert_eq!((extend(&mut queue, &mut second, now), second.events, second.is_held), (Next::Sleep, 2, true));

    // Until those are told who are in the first, nobody is late.
    queue.commit_answered(true, now);
    let told = now + Duration::from_secs(1);
    assert_eq!((extend(&mut queue, &mut second, told), second.is_held), (Next::Sleep, false));
    for waiting in &first.members {
        queue.settle(&waiting.member, &Ok(at(1)), told);
    }
    queue.batch_landed(0, told);
    assert_eq!(extend(&mut queue, &mut second, told), Next::Look);
    let _back: Vec<_> = (1_000..1_254).map(|subject| waits(&mut queue, &[subject])).collect();
    assert_eq!((extend(&mut queue, &mut second, told), second.events, queue.len()), (Next::Send, 254, 2));
    assert!(matches!(extend(&mut queue, &mut second, told), Next::Commit { .. }));
}

/// A queue whose batch of 254 is at its commit, and the next one, begun with the two that it left behind.
fn with_held_batch(now: Instant) -> (Queue, Gathered, Gathered, Vec<Receiver>) {
    let (mut queue, mut first, outcomes) = with_open_batch(256, now);
    assert!(matches!(extend(&mut queue, &mut first, now), Next::Commit { .. }));
    queue.close(now);
    let mut second = Gathered::new(queue.take(now).batch, now);
    assert_eq!((extend(&mut queue, &mut second, now), second.is_held), (Next::Sleep, true));
    (queue, first, second, outcomes)
}

/// Those in `batch` are told that it is in the log.
fn lands(queue: &mut Queue, batch: &Gathered, now: Instant) {
    for waiting in &batch.members {
        queue.settle(&waiting.member, &Ok(at(1)), now);
    }
    queue.batch_landed(0, now);
}

#[test]
fn who_begins_a_batch_does_not_wait_for_long_for_those_who_do_not_come_back() {
    let now = Instant::now();
    let (mut queue, first, mut second, _outcomes) = with_held_batch(now);
    queue.commit_answered(true, now);
    lands(&mut queue, &first, now);
    assert_eq!(extend(&mut queue, &mut second, now), Next::Look);
    assert!(matches!(extend(&mut queue, &mut second, now + Duration::from_millis(5)), Next::Commit { .. }));
}

#[test]
fn who_begins_a_batch_waits_while_the_one_before_goes_again_but_not_where_its_answer_is_lost() {
    let now = Instant::now();
    let (mut queue, first, mut second, _outcomes) = with_held_batch(now);
    // It is refused, since one of its members is stale, and goes again without that one.
    queue.commit_answered(true, now);
    let later = now + Duration::from_secs(1);
    assert_eq!((extend(&mut queue, &mut second, later), second.is_held), (Next::Sleep, false));
    queue.commit_sent();
    assert_eq!((extend(&mut queue, &mut second, later), second.is_held), (Next::Sleep, true));
    // Now it may take seconds until its members are told.
    queue.commit_answered(false, later);
    assert!(matches!(extend(&mut queue, &mut second, later + Duration::from_secs(1)), Next::Commit { .. }));
    drop(first);
}

#[test]
fn a_crowd_that_does_not_come_back_is_not_waited_for_again_soon() {
    for (coming_back, is_crowd) in [(0, false), (63, false), (64, true), (200, true)] {
        let now = Instant::now();
        let (mut queue, first, mut second, _outcomes) = with_held_batch(now);
        queue.commit_answered(true, now);
        lands(&mut queue, &first, now);
        let _back: Vec<_> = (1_000..1_000 + coming_back).map(|subject| waits(&mut queue, &[subject])).collect();
        while extend(&mut queue, &mut second, now) == Next::Send {}
        assert!(matches!(extend(&mut queue, &mut second, now + Duration::from_secs(1)), Next::Commit { .. }));
        assert_eq!((queue.goes_as_one(), queue.crowd() >= 256), (is_crowd, true), "{coming_back}");
        queue.stats.batches += APART_BATCHES;
        assert!(queue.goes_as_one());
    }
}

#[test]
fn what_has_to_be_tried_alone_is_not_put_off_for_ever() {
    let now = Instant::now();
    let (mut queue, mut first, _outcomes) = with_open_batch(256, now);
    let later = now + Duration::from_secs(60);
    assert!(queue.costs.is_trial_due(later));
    assert!(matches!(extend(&mut queue, &mut first, later), Next::Commit { .. }));
    queue.close(later);
    assert!(queue.len() == 2 && !queue.may_take(), "a batch is begun where a trial is due");
}

#[test]
fn what_has_to_be_tried_is_tried_with_the_single_ones_of_a_mixed_crowd() {
    let now = Instant::now();
    let mut queue = after_a_crowd(now);
    let of_two = |queue: &mut Queue, number: u64| waits(queue, &[1_000 + 2 * number, 1_001 + 2 * number]);
    let mut outcomes: Vec<_> = (0..40).map(|number| of_two(&mut queue, number)).collect();
    outcomes.extend((0..40).map(|subject| waits(&mut queue, &[subject])));
    let due = now + Duration::from_secs(1);
    let round = queue.take(due);
    assert_eq!((subjects(&round.plains), round.batch.len(), queue.len()), ((0..20).collect(), 0, 60));
    assert!(!queue.costs.is_trial_due(due));
}

#[test]
fn what_cannot_be_tried_does_not_stay_due_for_ever() {
    let now = Instant::now();
    let mut queue = Queue::new(now);
    assert!(queue.costs.is_trial_due(now));
    let _outcomes: Vec<_> = (0..80).map(|number| waits(&mut queue, &[2 * number, 2 * number + 1])).collect();
    let round = queue.take(now);
    assert!(round.plains.is_empty() && round.is_open);
    assert!(!queue.costs.is_trial_due(now) && queue.costs.is_trial_due(now + Duration::from_secs(1)));
}

#[test]
fn large_ones_are_not_left_behind() {
    for (count, of) in [(2, 100), (4, 50), (70, 3)] {
        let now = Instant::now();
        let mut queue = after_a_crowd(now);
        queue.costs.trial_begins(TRIAL_EVENTS_MAX, true, now);
        let large = |number: u64| (number * of..(number + 1) * of).collect::<Vec<_>>();
        let _outcomes: Vec<_> = (0..count).map(|number| waits(&mut queue, &large(number))).collect();
        assert!(queue.goes_as_one());
        assert_eq!((events_of(&queue.take(now).batch) as u64, queue.len()), (count * of, 0), "{count} of {of}");
    }
}

#[test]
fn one_that_is_left_behind_begins_a_batch_if_it_has_to_be_one_and_waits_for_another_one_otherwise() {
    let now = Instant::now();
    let (mut queue, mut first, mut outcomes) = with_open_batch(256, now);
    assert!(matches!(extend(&mut queue, &mut first, now), Next::Commit { .. }));
    queue.close(now);
    outcomes.pop();
    let crowd = queue.crowd();
    let round = queue.take(now);
    assert_eq!((round.plains.len(), round.batch.len(), queue.len(), queue.crowd()), (0, 0, 1, crowd));
    assert!(!queue.may_take());
    let _another = waits(&mut queue, &[1_000]);
    assert!(queue.may_take());
    let round = queue.take(now);
    assert_eq!((subjects(&round.batch), round.is_open), (vec![254, 1_000], true));

    // Whoever waits then may have to wait for what is in flight: nobody is no batch.
    let (mut queue, mut first, mut outcomes) = with_open_batch(256, now);
    assert!(matches!(extend(&mut queue, &mut first, now), Next::Commit { .. }));
    queue.close(now);
    outcomes.truncate(254);
    let _blocked = waits(&mut queue, &[0, 1]);
    let round = queue.take(now);
    assert!(round.batch.is_empty() && !round.is_open && queue.len() == 1);
    assert_eq!(queue.open, Open::No);

    let mut queue = after_a_crowd(now);
    queue.costs.trial_begins(TRIAL_EVENTS_MAX, true, now);
    let _outcomes: Vec<_> = (0..128).map(|number| waits(&mut queue, &[2 * number, 2 * number + 1])).collect();
    let mut first = Gathered::new(queue.take(now).batch, now);
    assert!(matches!(extend(&mut queue, &mut first, now), Next::Commit { .. }));
    queue.close(now);
    let round = queue.take(now);
    assert_eq!((subjects(&round.batch), round.is_open), (vec![254, 255], true));
}

#[test]
fn two_halves_leave_a_moment_for_what_has_to_be_tried() {
    for is_due in [false, true] {
        let now = Instant::now();
        let (mut queue, mut batch, _outcomes) = with_open_batch(1_024, now);
        while extend(&mut queue, &mut batch, now) == Next::Send {}
        let later = if is_due { now + Duration::from_secs(60) } else { now };
        assert!(matches!(extend(&mut queue, &mut batch, later), Next::Commit { .. }));
        queue.close(later);
        assert_eq!((queue.len(), queue.may_take()), (512, !is_due));
        if is_due {
            queue.costs.is_replicated = true;
            assert!(queue.may_take(), "several servers take several batches at the same time");
            queue.costs.is_replicated = false;
            queue.commit_answered(true, later);
            lands(&mut queue, &batch, later);
            let round = queue.take(later);
            assert_eq!((round.plains.len(), round.batch.len()), (TRIAL_EVENTS_MAX, 0));
        }
    }
}

#[test]
fn nothing_is_tried_while_a_batch_goes_again_whose_answer_was_lost() {
    let now = Instant::now();
    let (mut queue, mut batch, _outcomes) = with_open_batch(1_024, now);
    while extend(&mut queue, &mut batch, now) == Next::Send {}
    let later = now + Duration::from_secs(60);
    assert!(matches!(extend(&mut queue, &mut batch, later), Next::Commit { .. }));
    queue.close(later);
    assert!(!queue.may_take());
    queue.commit_answered(false, later);
    assert!(queue.may_take(), "half of the callers wait for a batch that may take seconds");
}

#[test]
fn a_crowd_that_is_enough_for_two_batches_goes_as_two_halves() {
    let now = Instant::now();
    let (mut queue, mut batch, _outcomes) = with_open_batch(1_024, now);
    while extend(&mut queue, &mut batch, now) == Next::Send {}
    assert_eq!((batch.events, queue.len()), (512, 512));
    assert!(matches!(extend(&mut queue, &mut batch, now), Next::Commit { .. }));
}

#[test]
fn what_does_not_fit_one_batch_does_not_go_as_one_however_much_a_batch_costs() {
    let now = Instant::now();
    let mut queue = Queue::new(now);
    for _ in 0..7 {
        queue.costs.batch_answered(1, now, now + Duration::from_millis(15));
    }
    assert!(queue.costs.next_batch_events_min() > 1_024 / HALVES_WORTH);
    let _outcomes: Vec<_> = (0..500).map(|number| waits(&mut queue, &[2 * number, 2 * number + 1])).collect();
    assert!(queue.goes_as_one());
    let _one_more = waits(&mut queue, &[1_000]);
    assert!(!queue.goes_as_one());
}

#[test]
fn an_open_batch_stays_within_what_the_server_takes() {
    let now = Instant::now();
    let (mut queue, mut batch, _outcomes) = with_open_batch(60, now);
    let large = |queue: &mut Queue, subject| queue.admit(member(&[subject], 0, 3 * 1024 * 1024), now);
    let _outcomes: Vec<_> = (1_000..1_003).map(|subject| large(&mut queue, subject)).collect();
    while extend(&mut queue, &mut batch, now) == Next::Send {}
    assert_eq!((batch.members.len(), queue.len()), (61, 2));
}

#[test]
fn where_conflicts_are_likely_no_batch_is_open() {
    let now = Instant::now();
    let mut queue = Queue::new(now);
    queue.saw_conflicts(30, 256);
    let _outcomes: Vec<_> = (0..100).map(|number| waits(&mut queue, &[2 * number, 2 * number + 1])).collect();
    assert!(!queue.is_sure_to_be_batch(now));
    let round = queue.take(now);
    assert!(!round.is_open && round.batch.len() == 100);
}

#[test]
fn what_turns_out_to_be_stale_while_a_batch_is_open_is_handed_out() {
    let now = Instant::now();
    let (mut queue, mut batch, _outcomes) = with_open_batch(60, now);
    let _late = waits(&mut queue, &[77]);
    queue.known.saw(77, 9);
    let mut stale = Vec::new();
    let next = queue.extend(&mut batch, &mut stale, now);
    assert_eq!((next, subjects(&stale), queue.len()), (Next::Look, vec![77], 0));
}
