//! `docs/tour.md`: whoever follows it must see what it says.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use local_stack::workspace_root;
use tokio::task::block_in_place;

use crate::running::Running;

/// The page's commands: every block that is to be typed into the second terminal.
fn commands(page: &str) -> String {
    let blocks = page.split("```sh\n").skip(1).map(|rest| rest.split("```").next().unwrap_or_default());
    blocks.collect::<Vec<_>>().join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn every_command_of_the_tour_works_in_its_order() {
    let page = fs::read_to_string(workspace_root().join("docs/tour.md")).unwrap();
    let commands = commands(&page);
    assert!(commands.contains("tour-checkout-1") && commands.contains("replay all --verify"), "{commands}");

    // A checkout with a running stack, as the page has it.
    let running = Running::start();
    let checkout = tempfile::tempdir().unwrap();
    symlink(running.stack().directory(), checkout.path().join(".contrail")).unwrap();
    symlink(workspace_root().join("infra"), checkout.path().join("infra")).unwrap();
    let built = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().to_owned();
    fs::create_dir(checkout.path().join("target")).unwrap();
    symlink(built, checkout.path().join("target/debug")).unwrap();
    // The page takes a token of this stack; `cargo xtask` would make one of the stack of our own checkout.
    let customer = running.stack().token("customer", "c-7").unwrap();
    let commands = commands.replace("$(cargo xtask token --role customer --sub c-7)", &customer);
    assert!(commands.contains(&format!("stranger={customer}")));

    let mut bash = Command::new("bash");
    bash.args(["-euo", "pipefail", "-c", &commands]).current_dir(checkout.path());
    let output = block_in_place(|| bash.output()).unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{said}\n{}", String::from_utf8_lossy(&output.stderr));
    // What the page shows, but for the order's id.
    let receipt = r#"{"sku":"TEA-1","on_hand":100,"reserved":0,"available":100,"version":1,"position":1}"#;
    assert!(page.contains(receipt));
    assert_eq!(said.matches(receipt).count(), 2, "{said}");
    for shown in [
        r#""status":"PLACED","version":1,"position":2}"#,
        r#"{"data":{"order":{"status":"#,
        r#"{"data":{"order":null}}"#,
        "event: next",
        r#""status":"CANCELLED""#,
        "the payment is REFUNDED",
        r#""type":"contrail.payment.refunded.v1""#,
        r#"{"data":{"order":{"status":"PLACED","paymentStatus":"NONE","version":1}}}"#,
    ] {
        assert!(said.contains(shown), "{shown} is not in {said}");
    }
    running.finish();
}
