//! Settings are refused as a whole, with every mistake listed.

use reactors::settings::{REACTORS, RunArgs};

fn right() -> RunArgs {
    let some = |text: &str| Some(text.to_owned());
    RunArgs {
        only: Vec::new(),
        nats_url: some("nats://127.0.0.1:4222"),
        listen_addr: some("127.0.0.1:0"),
        stripe_api_base: some("http://127.0.0.1:1/mounted/here"),
        stripe_api_key: some("sk_test_1"),
        mail_dir: some("mail"),
        mail_from: some("Shop <orders@shop.example>"),
        payment_window_s: None,
        aggregate_cache_mib: None,
    }
}

fn mistakes(args: RunArgs) -> Vec<String> {
    args.check().expect_err("there are mistakes").mistakes
}

#[test]
fn right_settings_run_every_reactor_unless_told_otherwise() {
    let settings = right().check().unwrap();
    assert_eq!(settings.only, REACTORS);
    assert_eq!(settings.payment_window.as_secs(), 900);
    assert_eq!(settings.aggregate_cache_bytes, 64 * 1_024 * 1_024);
    let some = RunArgs { only: vec!["payments".to_owned()], payment_window_s: Some("60".to_owned()), ..right() };
    let settings = some.check().unwrap();
    assert_eq!((settings.only.as_slice(), settings.payment_window.as_secs()), (["payments".to_owned()].as_slice(), 60));
}

#[test]
fn what_is_missing_is_all_listed() {
    let nothing = RunArgs {
        only: Vec::new(),
        nats_url: None,
        listen_addr: None,
        stripe_api_base: None,
        stripe_api_key: None,
        mail_dir: None,
        mail_from: None,
        payment_window_s: None,
        aggregate_cache_mib: None,
    };
    let names = ["NATS_URL", "LISTEN_ADDR", "STRIPE_API_BASE", "STRIPE_API_KEY", "MAIL_DIR", "MAIL_FROM"];
    assert_eq!(mistakes(nothing), names.map(|name| format!("{name}: missing")));
}

#[test]
fn what_is_wrong_is_all_listed_and_never_shown() {
    let some = |text: &str| Some(text.to_owned());
    let wrong = RunArgs {
        only: vec!["payments".to_owned(), "allocators".to_owned()],
        nats_url: some("http://127.0.0.1:4222"),
        listen_addr: some("127.0.0.1"),
        stripe_api_base: some("127.0.0.1:1"),
        stripe_api_key: some("sk_live_secret with a space"),
        mail_from: some("orders at shop"),
        payment_window_s: some("0"),
        aggregate_cache_mib: some("0"),
        ..right()
    };
    let mistakes = mistakes(wrong);
    let beginnings: Vec<_> = mistakes.iter().map(|mistake| mistake.split(':').next().unwrap()).collect();
    let names = [
        "--only",
        "NATS_URL",
        "LISTEN_ADDR",
        "STRIPE_API_BASE",
        "STRIPE_API_KEY",
        "MAIL_FROM",
        "PAYMENT_WINDOW_S",
        "AGGREGATE_CACHE_MIB",
    ];
    assert_eq!(beginnings, names);
    assert!(mistakes.iter().all(|mistake| !mistake.contains("sk_live") && !mistake.contains("at shop")), "{mistakes:?}");
}

#[test]
fn the_key_is_never_shown() {
    let settings = right().check().unwrap();
    assert!(!format!("{settings:?}").contains("sk_test"), "{settings:?}");
}
