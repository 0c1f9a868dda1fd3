//! Where keys come from, and that tokens of others' making are understood.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use auth::settings::{KeySource, RateLimits};
use auth::{AuthSettings, Door, Refused, Role};
use axum::{Router, http::StatusCode, routing::get};
use local_stack::tokens::{AUDIENCE, Claims, TokenIssuer};
use serde_json::{Value, json};
use telemetry::{health::Health, metrics::Metrics};
use tokio::net::TcpListener;

/// How long a condition may take to come true.
const PATIENCE: Duration = Duration::from_secs(30);

/// The public half of a key that OpenSSL made, and a token that OpenSSL signed with it: of the service "checkout", for two audiences of
/// which we are one, until the year 2096.
const RSA_MODULUS: &str = "ynKSKW82Day5lgEioHjXkUqwWHZvv6oPYTVMCR7cxoyYrgpveXuCvp7Ur9N0OlL6JaeZaqFodcLFOESx175AGEcxtGlvWoF7FTbf8spULzmKjCsA3nx-sCG-ufPa8Vwl1e79eC9YygVJyfo--kBEnKVOmSkZ1JGiZBjCeX66yX_OPFszAvZnNdbDSl8pzFQYRupCQlEHkAlRSAwVyZTklhUIpn6pN1lpt4xTy5TCWw8KQnr4O873UmVWo_QNKo4scjpUbINEIYnKvR5FrskhonZA83ushTGN5jbbrpOe5DgSMt0zXBwNiyclCZxOa7cKHq7KzsKzPRq_MUAMH3vySQ";
const RSA_TOKEN: &str = "eyJhbGciOiJSUzI1NiIsInR5cCI6IkpXVCIsImtpZCI6InJzYS0xIn0.eyJzdWIiOiJjaGVja291dCIsInJvbGUiOiJzZXJ2aWNlIiwiYXVkIjpbInNvbWVib2R5IGVsc2UiLCJjb250cmFpbCJdLCJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwiZXhwIjo0MDAwMDAwMDAwfQ.jIHscJoVRsBCivOF4eDTkBO99BZATQqBSEQgxng_h1xwURKUF-WD2ul2i0y47MQ60WaKtyNIOMFrXAG-WKAs81ponv2Rsof7324e2ZZkI9cUUN8TfPbohanr7BmOLHDMEkcTLnrUttbbGPzD4pYKcFZ9VrUe2NYdHVXHeOG7fSPKBwklb3no2GZTo9hRhq78N-y7nPfKJ1odn9ud3n8pGSFnsuT4607nepzo0UUZ5UXTb1K8-YSPMYRSFWKU_hczWZwWtyj_XaJPN4HG0qsk9iv72WecqL176CwGmLBWT3cQcKhrTpfAE8aXJIL7X2hOmaiFYY3ySeX-2cIdaK8Uhw";

fn settings(source: KeySource, issuer: Option<&str>) -> AuthSettings {
    let limits = RateLimits { customer: None, staff: None };
    AuthSettings::Keys { source, audience: AUDIENCE.to_owned(), issuer: issuer.map(str::to_owned), limits }
}

/// A door that lets in whose keys are in this file.
async fn door_with(key_set: &tempfile::NamedTempFile, issuer: Option<&str>) -> Door {
    let health = Health::new("test");
    let door = Door::new(settings(KeySource::File(key_set.path().to_owned()), issuer), &health).expect("a door");
    tokio::time::timeout(PATIENCE, async {
        while !health.is_ready() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await
    .expect("the keys are read");
    door
}

fn file_with(key_set: &Value) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(&file, key_set.to_string()).expect("it is written");
    file
}

fn token_of(issuer: &TokenIssuer) -> String {
    issuer.token(Claims { role: "operator", subject: "o", audience: AUDIENCE, lifetime: Duration::from_secs(600) })
}

#[tokio::test]
async fn rs256_is_understood_as_others_sign_it() {
    let key_set = json!({"keys": [{"kty": "RSA", "kid": "rsa-1", "n": RSA_MODULUS, "e": "AQAB"}]});
    let door = door_with(&file_with(&key_set), Some("https://issuer.example")).await;
    let caller = door.ask_for(Ok(RSA_TOKEN)).await.expect("a good token");
    assert_eq!((caller.role(), caller.actor().as_str()), (Some(Role::Service), "service:checkout"));

    let tampered = RSA_TOKEN.replacen(".eyJzdWIi", ".eyJzdWJi", 1);
    assert_ne!(tampered, RSA_TOKEN);
    assert!(matches!(door.ask_for(Ok(&tampered)).await, Err(Refused::BadToken(_))));
    let elsewhere = door_with(&file_with(&key_set), Some("https://another.example")).await;
    assert_eq!(elsewhere.ask_for(Ok(RSA_TOKEN)).await, Err(Refused::BadToken("it is from another issuer".to_owned())));
}

#[tokio::test]
async fn those_who_are_not_let_in_are_counted_by_reason() {
    let issuer = TokenIssuer::generate().expect("a key");
    let door = door_with(&file_with(&issuer.key_set()), None).await;
    let metrics = Metrics::new("test");
    door.tell_refusals(&metrics);
    assert!(door.ask_for(Ok(&token_of(&issuer))).await.is_ok());
    for token in [Err(Refused::NoToken), Ok("no token"), Ok("a.b.c")] {
        assert!(door.ask_for(token).await.is_err());
    }
    let text = metrics.openmetrics();
    let counted: Vec<_> = text.lines().filter(|line| line.contains("auth_refusals_total{")).collect();
    assert_eq!(counted.len(), 4, "{text}");
    for (reason, count) in [("no_token", 1), ("bad_token", 2), ("too_often", 0), ("no_keys", 0)] {
        assert!(counted.iter().any(|line| line.ends_with(&format!("{{reason=\"{reason}\"}} {count}"))), "{text}");
    }
}

#[tokio::test]
async fn a_new_key_is_taken_and_an_old_one_is_not_any_more() {
    let [old, new] = [TokenIssuer::generate(), TokenIssuer::generate()].map(|issuer| issuer.expect("a key"));
    let file = file_with(&old.key_set());
    let door = door_with(&file, None).await;
    assert!(door.ask_for(Ok(&token_of(&old))).await.is_ok());
    assert!(door.ask_for(Ok(&token_of(&new))).await.is_err());
    std::fs::write(&file, new.key_set().to_string()).expect("it is written");
    // A token of an unknown key has the keys read again, but not all the time.
    let taken = async {
        while door.ask_for(Ok(&token_of(&new))).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.expect("the new key is taken");
    assert!(door.ask_for(Ok(&token_of(&old))).await.is_err(), "although it was good a moment ago");
    // What is no key set changes nothing.
    std::fs::write(&file, "half a file").expect("it is written");
    assert!(door.ask_for(Ok(&token_of(&new))).await.is_ok());
}

#[tokio::test]
async fn a_key_server_that_is_away_is_waited_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let issuer = TokenIssuer::generate().expect("a key");
    let health = Health::new("test");
    let door = Door::new(settings(KeySource::Url(format!("http://{address}/jwks")), None), &health).expect("a door");
    assert_eq!(door.ask_for(Ok(&token_of(&issuer))).await, Err(Refused::Unavailable));
    assert_eq!(Refused::Unavailable.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(!health.is_ready());

    let key_set = issuer.key_set().to_string();
    let router = Router::new().route("/jwks", get(async || key_set));
    let listener = TcpListener::bind(address).await.expect("the same port");
    tokio::spawn(async move { axum::serve(listener, router).await });
    let taken = async {
        while door.ask_for(Ok(&token_of(&issuer))).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, taken).await.expect("the keys are fetched");
}

/// A key server that answers the first request with this key set, and none of those that follow; how many there were.
async fn server_that_hangs_after_one_answer(key_set: String) -> (KeySource, Arc<AtomicUsize>) {
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let answer = move || async move {
        if counted.fetch_add(1, Ordering::SeqCst) > 0 {
            std::future::pending::<()>().await;
        }
        key_set
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/jwks", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, Router::new().route("/jwks", get(answer))).await });
    (KeySource::Url(url), requests)
}

#[tokio::test]
async fn while_the_key_server_hangs_nobody_waits_longer_than_for_one_fetch() {
    let [issuer, stranger] = [TokenIssuer::generate(), TokenIssuer::generate()].map(|issuer| issuer.expect("a key"));
    let (source, requests) = server_that_hangs_after_one_answer(issuer.key_set().to_string()).await;
    let health = Health::new("test");
    let door = Door::new(settings(source, None), &health).expect("a door");
    let (known, unknown) = (token_of(&issuer), token_of(&stranger));
    let begun = async {
        // Soon after the keys were read an unknown key is refused at once; then one of these has them fetched again.
        while requests.load(Ordering::SeqCst) < 2 {
            let asking = door.ask_for(Ok(&unknown));
            // Whoever asked for the fetch may go away: it goes on.
            let _ = tokio::time::timeout(Duration::from_millis(50), asking).await;
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, begun).await.expect("the keys are fetched again");

    let asked = Instant::now();
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..500 {
        let (door, unknown) = (door.clone(), unknown.clone());
        asking.spawn(async move { door.ask_for(Ok(&unknown)).await });
    }
    assert!(door.ask_for(Ok(&known)).await.is_ok(), "a key that is known needs no server");
    assert!(asked.elapsed() < Duration::from_secs(2), "{:?}", asked.elapsed());
    let refusals = asking.join_all().await;
    assert!(asked.elapsed() < Duration::from_secs(8), "all waited for one fetch, of 5 s: {:?}", asked.elapsed());
    let bad = refusals.iter().filter(|refused| matches!(refused, Err(Refused::BadToken(_)))).count();
    let unavailable = refusals.iter().filter(|refused| **refused == Err(Refused::Unavailable)).count();
    assert_eq!((bad, unavailable), (64, 436), "only so many may wait");

    let asked = Instant::now();
    assert!(matches!(door.ask_for(Ok(&unknown)).await, Err(Refused::BadToken(_))));
    assert!(asked.elapsed() < Duration::from_secs(2), "a fetch has just failed: {:?}", asked.elapsed());
    assert_eq!(requests.load(Ordering::SeqCst), 2);
    assert!(door.ask_for(Ok(&known)).await.is_ok() && health.is_ready());
}

#[tokio::test]
async fn the_last_key_is_withdrawn_like_any_other() {
    let [issuer, stranger] = [TokenIssuer::generate(), TokenIssuer::generate()].map(|issuer| issuer.expect("a key"));
    let file = file_with(&issuer.key_set());
    let health = Health::new("test");
    let door = Door::new(settings(KeySource::File(file.path().to_owned()), None), &health).expect("a door");
    let eventually_ready = async |expected: bool| {
        let waiting = async {
            while health.is_ready() != expected {
                // A token of an unknown key has the keys read again, but not all the time.
                assert!(door.ask_for(Ok(&token_of(&stranger))).await.is_err());
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(PATIENCE, waiting).await.expect("the keys are read again");
    };
    eventually_ready(true).await;
    assert!(door.ask_for(Ok(&token_of(&issuer))).await.is_ok());

    std::fs::write(&file, json!({"keys": []}).to_string()).expect("it is written");
    eventually_ready(false).await;
    assert!(matches!(door.ask_for(Ok(&token_of(&issuer))).await, Err(Refused::BadToken(_))));

    std::fs::write(&file, issuer.key_set().to_string()).expect("it is written");
    eventually_ready(true).await;
    assert!(door.ask_for(Ok(&token_of(&issuer))).await.is_ok());
}
