//! `audit verify --live`: the table against the log.

use projectors::audit::{
    export::{self, Destination, Request},
    key::Signer,
    live::{self, LiveFinding, LiveVerdict},
    merkle::{Frontier, leaf_hash},
    verify::Fault,
};
use read_store::projections::ProjectionName;
use telemetry::exit::Exit;

use crate::world::World;

async fn verify_by(world: &World, signer: Option<&Signer>) -> LiveVerdict {
    let key = signer.map(Signer::verifier_key);
    live::verify(&world.store, &world.pool, key.as_ref()).await.unwrap()
}

async fn verify(world: &World) -> LiveVerdict {
    verify_by(world, Some(&world.signer)).await
}

/// Some orders, in the log and in the trail.
async fn world() -> (World, u64) {
    let world = World::new().await;
    let end = fill(&world).await;
    (world, end)
}

async fn fill(world: &World) -> u64 {
    let running = world.run().await;
    let end = world.teller().tell(6).await;
    world.reach(&[ProjectionName::Audit], end).await;
    running.stop().await;
    end
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_that_is_the_log_verifies() {
    let empty = World::new().await;
    let verdict = verify(&empty).await;
    assert!(verdict.verified && verdict.size == 0, "{verdict}");
    let (world, end) = world().await;
    let verdict = verify(&world).await;
    assert!(verdict.verified && verdict.signatures_verified && verdict.checkpoints > 0, "{verdict}");
    assert_eq!(verdict.size, end);
    // What is in the log and not yet in the trail is no difference.
    world.poison("events.order.later", "no event").await;
    assert_eq!(verify_by(&world, None).await, LiveVerdict { signatures_verified: false, ..verdict });
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_is_changed_in_the_table_is_told() {
    let (world, _) = world().await;
    let found = async |tampering: &str, mending: &str| {
        world.execute(tampering).await;
        let verdict = verify(&world).await;
        world.execute(mending).await;
        let findings = verdict.findings.into_iter().map(|finding| (finding.position, finding.fault, finding.detail));
        findings.collect::<Vec<_>>()
    };
    let flip = "UPDATE contrail.audit SET bytes = set_byte(bytes, 100, get_byte(bytes, 100) # 1) WHERE position = 5";
    let other_bytes = "the bytes in the table are not those of the log".to_owned();
    assert_eq!(found(flip, flip).await, [(5, Fault::Altered, other_bytes.clone())]);
    let rehash = "UPDATE contrail.audit SET leaf_hash = sha256('\\x00'::bytea || bytes) WHERE position = 5";
    let both = format!("{flip}; {rehash}");
    assert_eq!(found(&both, &both).await, [(5, Fault::Altered, other_bytes)]);
    let column = |column: &str| format!("the table's column {column} is not what the event's bytes say");
    let actor = "UPDATE contrail.audit SET actor = 'operator:o-1' WHERE position = 7";
    let mend = "UPDATE contrail.audit SET actor = (SELECT actor FROM contrail.audit WHERE position = 6) WHERE position = 7";
    assert_eq!(found(actor, mend).await, [(7, Fault::Altered, column("actor"))]);
    let version = "UPDATE contrail.audit SET version = version + 1 WHERE position IN (3, 9)";
    let mend = "UPDATE contrail.audit SET version = version - 1 WHERE position IN (3, 9)";
    let (third, ninth) = ((3, Fault::Altered, column("version")), (9, Fault::Altered, column("version")));
    assert_eq!(found(version, mend).await, [third, ninth]);
    let hide = "UPDATE contrail.audit SET position = -position WHERE position IN (1, 2)";
    let mend = "UPDATE contrail.audit SET position = -position WHERE position IN (-1, -2)";
    let missing = |position| (position, Fault::Missing, "the table does not have this event of the log".to_owned());
    let elsewhere = (0, Fault::Extra, "the table has 2 rows at positions before the first".to_owned());
    assert_eq!(found(hide, mend).await, [missing(1), missing(2), elsewhere]);
    let verdict = verify(&world).await;
    assert!(verdict.verified, "{verdict}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_the_log_does_not_have_is_told() {
    let (world, _) = world().await;
    let stranger = verify_by(&world, Some(&Signer::from_seed(&[8; 32]))).await;
    assert!(stranger.findings.iter().all(|finding| finding.fault == Fault::WronglySigned) && !stranger.verified, "{stranger}");
    assert_eq!(stranger.findings.len() as u64, stranger.checkpoints);
    let spoil = "UPDATE contrail.audit_checkpoints SET root = set_byte(root, 0, get_byte(root, 0) # 1) \
                 WHERE size = (SELECT max(size) FROM contrail.audit_checkpoints)";
    world.execute(spoil).await;
    for signer in [None, Some(&world.signer)] {
        let verdict = verify_by(&world, signer).await;
        assert!(!verdict.verified && verdict.findings[0].detail.ends_with("whose root was recorded"), "{verdict}");
    }
    world.execute(spoil).await;
    for frontier in ["set_byte(frontier, 9, get_byte(frontier, 9) # 1)", "'\\x00'", "NULL"] {
        world.execute(&format!("UPDATE contrail.projections SET frontier = {frontier} WHERE name = 'audit'")).await;
        let verdict = verify(&world).await;
        assert_eq!(verdict.findings.len(), 1, "{frontier}: {verdict}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_and_checkpoints_beyond_the_trail_are_told() {
    let (world, end) = world().await;
    let columns =
        "event_id, event_type, aggregate_type, aggregate_id, version, time, actor, correlation_id, causation_id, trace_id";
    let plant = format!(
        "INSERT INTO contrail.audit (position, leaf_hash, bytes, {columns}) \
         SELECT 999999999, leaf_hash, bytes, {columns} FROM contrail.audit WHERE position = 3"
    );
    world.execute(&plant).await;
    let planted = verify(&world).await;
    world.execute("DELETE FROM contrail.audit WHERE position = 999999999").await;
    let detail = format!("the table has 1 rows beyond position {end}, where the trail is");
    assert_eq!(planted.findings, [LiveFinding { position: 999_999_999, fault: Fault::Extra, detail }]);

    let forge = "INSERT INTO contrail.audit_checkpoints (size, root, note) \
                 SELECT 5000000, root, note FROM contrail.audit_checkpoints ORDER BY size DESC LIMIT 1";
    world.execute(forge).await;
    let forged = verify(&world).await;
    world.execute("DELETE FROM contrail.audit_checkpoints WHERE size = 5000000").await;
    let detail = format!("the log ends at position {end}, before the 5000000 events of a recorded checkpoint");
    assert_eq!(forged.findings, [LiveFinding { position: end + 1, fault: Fault::Missing, detail }]);
    assert!(verify(&world).await.verified);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trail_that_was_cut_back_is_told_and_not_exported_as_all_there_is() {
    let (world, _) = world().await;
    let signed = world.count("SELECT max(size) FROM contrail.audit_checkpoints").await;
    let mut tree = Frontier::new();
    let left = signed - 1;
    let bytes = "SELECT bytes FROM contrail.audit WHERE position <= $1 ORDER BY position";
    let bytes: Vec<Vec<u8>> = sqlx::query_scalar(bytes).bind(left.cast_signed()).fetch_all(&world.pool).await.unwrap();
    for bytes in &bytes {
        tree.append(leaf_hash(bytes));
    }
    world.execute(&format!("DELETE FROM contrail.audit WHERE position > {left}")).await;
    sqlx::query("UPDATE contrail.projections SET position = $1, frontier = $2 WHERE name = 'audit'")
        .bind(left.cast_signed())
        .bind(tree.to_bytes())
        .execute(&world.pool)
        .await
        .unwrap();
    let verdict = verify(&world).await;
    let [finding] = verdict.findings.as_slice() else { panic!("{verdict}") };
    assert_eq!((finding.position, finding.fault, verdict.size), (signed, Fault::Missing, left));
    assert!(verdict.checkpoints > 0 && finding.detail.contains(&format!("and {signed} were signed")), "{verdict}");

    let refused = export::export(&world.pool, &world.signer, &Request::all(Destination::Stdout)).await.unwrap_err();
    assert_eq!(refused.exit(), Exit::TryAgain, "{refused}");
    assert!(refused.to_string().contains(&format!("is at position {left}, and {signed} events of it were signed")), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_log_that_lacks_events_is_told() {
    let (world, log) = World::with_careless_stream().await;
    let end = fill(&world).await;
    let missing = async || {
        let verdict = verify(&world).await;
        assert_eq!((verdict.verified, verdict.root.as_deref()), (false, None), "{verdict}");
        assert!(verdict.findings.iter().all(|finding| finding.fault == Fault::Missing), "{verdict}");
        verdict.findings.into_iter().map(|finding| (finding.position, finding.detail)).collect::<Vec<_>>()
    };
    let one = |position| (position, "the log does not have this event".to_owned());
    let several = |position, more| (position, format!("the log does not have this event, nor the next {more}"));
    log.delete_message(9).await.unwrap();
    assert_eq!(missing().await, [one(9)]);
    log.delete_message(10).await.unwrap();
    log.delete_message(end).await.unwrap();
    assert_eq!(missing().await, [several(9, 1), one(end)]);
    log.purge().sequence(4).await.unwrap();
    assert_eq!(missing().await, [several(1, 2), several(9, 1), one(end)]);
    log.purge().await.unwrap();
    assert_eq!(missing().await, [several(1, end - 1)]);
}
