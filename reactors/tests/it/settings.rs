//! Settings are refused as a whole, with every mistake listed.

use event_store::NatsArgs;
use reactors::settings::{PostboxSettings, REACTORS, RunArgs};
use telemetry::trace::settings::TraceFlags;

/// Of the specification's example.
const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

fn right() -> RunArgs {
    let some = |text: &str| Some(text.to_owned());
    RunArgs {
        only: Vec::new(),
        nats: NatsArgs { nats_url: some("nats://127.0.0.1:4222"), ..NatsArgs::default() },
        listen_addr: some("127.0.0.1:0"),
        stripe_api_base: some("http://127.0.0.1:1/mounted/here"),
        stripe_api_key: some("sk_test_1"),
        mail_dir: some("mail"),
        smtp_url: None,
        smtp_ca_file: None,
        mail_from: some("Shop <orders@shop.example>"),
        webhook_url: None,
        webhook_secret: None,
        payment_window_s: None,
        charge_checks_s: None,
        retry_budget_failures: None,
        retry_budget_s: None,
        aggregate_cache_mib: None,
        traces: TraceFlags::default(),
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
    let some = RunArgs {
        only: vec!["payments".to_owned()],
        payment_window_s: Some("60".to_owned()),
        charge_checks_s: Some("15, 5".to_owned()),
        ..right()
    };
    let settings = some.check().unwrap();
    assert_eq!((settings.only.as_slice(), settings.payment_window.as_secs()), (["payments".to_owned()].as_slice(), 60));
    assert_eq!(settings.charge_checks, [5, 15].map(std::time::Duration::from_secs));
}

#[test]
fn what_is_missing_is_all_listed() {
    let nothing = RunArgs {
        only: Vec::new(),
        nats: NatsArgs::default(),
        listen_addr: None,
        stripe_api_base: None,
        stripe_api_key: None,
        mail_dir: None,
        smtp_url: None,
        smtp_ca_file: None,
        mail_from: None,
        webhook_url: None,
        webhook_secret: None,
        payment_window_s: None,
        charge_checks_s: None,
        retry_budget_failures: None,
        retry_budget_s: None,
        aggregate_cache_mib: None,
        traces: TraceFlags::default(),
    };
    let names = ["NATS_URL", "LISTEN_ADDR", "STRIPE_API_BASE", "STRIPE_API_KEY", "MAIL_DIR", "MAIL_FROM"];
    assert_eq!(mistakes(nothing), names.map(|name| format!("{name}: missing")));
}

#[test]
fn what_is_wrong_is_all_listed_and_never_shown() {
    let some = |text: &str| Some(text.to_owned());
    let wrong = RunArgs {
        only: vec!["payments".to_owned(), "allocators".to_owned()],
        nats: NatsArgs { nats_url: some("http://127.0.0.1:4222"), ..NatsArgs::default() },
        listen_addr: some("127.0.0.1"),
        stripe_api_base: some("127.0.0.1:1"),
        stripe_api_key: some("sk_live_secret with a space"),
        mail_from: some("orders at shop"),
        payment_window_s: some("0"),
        charge_checks_s: some("60,1000000000000"),
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
        "CHARGE_CHECKS_S",
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

#[test]
fn mail_goes_either_into_a_folder_or_to_a_server() {
    let some = |text: &str| Some(text.to_owned());
    let with = |mail_dir: Option<&str>, smtp_url: Option<&str>| RunArgs {
        mail_dir: mail_dir.map(str::to_owned),
        smtp_url: smtp_url.map(str::to_owned),
        ..right()
    };
    assert!(matches!(with(Some("mail"), None).check().unwrap().postbox, PostboxSettings::Folder(_)));
    let server = with(None, Some("smtps://me:secret@mail.example")).check().unwrap();
    assert!(matches!(server.postbox, PostboxSettings::Server(_, None)));
    let both = mistakes(with(Some("mail"), Some("smtps://mail.example")));
    assert_eq!(both, ["MAIL_DIR: mail goes either there or to SMTP_URL"]);
    for wrong in ["mail.example", "http://mail.example", "smtp://me:secret@mail.example?tls=none"] {
        let told = mistakes(with(None, Some(wrong)));
        assert!(told.len() == 1 && told[0].starts_with("SMTP_URL: ") && !told[0].contains("secret"), "{told:?}");
    }
    let no_file = RunArgs { smtp_ca_file: some("/no/such/file"), ..with(None, Some("smtps://mail.example")) };
    assert!(mistakes(no_file)[0].starts_with("SMTP_CA_FILE: cannot be read"));
}

#[test]
fn webhooks_need_a_receiver_and_a_secret_or_neither() {
    let with = |url: Option<&str>, secret: Option<&str>| RunArgs {
        webhook_url: url.map(str::to_owned),
        webhook_secret: secret.map(str::to_owned),
        ..right()
    };
    assert!(with(None, None).check().unwrap().webhooks.is_none());
    assert!(with(Some("https://shop.example/hooks"), Some(SECRET)).check().unwrap().webhooks.is_some());
    assert_eq!(mistakes(with(Some("https://shop.example/hooks"), None)), ["WEBHOOK_SECRET: missing"]);
    assert_eq!(mistakes(with(None, Some(SECRET))), ["WEBHOOK_URL: missing"]);
    assert_eq!(mistakes(with(Some("shop.example"), Some("secret"))).len(), 2);
    let alone = RunArgs { only: vec!["webhooks".to_owned()], ..right() };
    assert_eq!(mistakes(alone), ["--only: webhooks needs WEBHOOK_URL"]);
}
