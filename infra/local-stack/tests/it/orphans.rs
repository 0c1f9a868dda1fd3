//! What happens when the process that has started servers is killed and cannot clean up.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use local_stack::running::Running;
use local_stack::testing;

use crate::postgres::{exists_any, shared_memory_of};

const GONE_DEADLINE: Duration = Duration::from_secs(20);

/// Not a test, but the process that the test below kills: it runs this function alone.
#[test]
#[ignore = "waits for ever; run by the test below"]
fn owner_that_waits_to_be_killed() {
    // Started from a thread that ends at once: the servers belong to the process, not to that thread.
    let (nats, postgres) = std::thread::spawn(|| (testing::nats(), testing::postgres())).join().unwrap();
    println!("\nrunning {} {}", nats.pid().unwrap(), postgres.pid().unwrap());
    loop {
        std::thread::park();
    }
}

#[test]
fn servers_die_with_the_process_that_started_them_even_when_it_is_killed() {
    let mut owner = Command::new(std::env::current_exe().unwrap());
    owner.args(["--exact", "orphans::owner_that_waits_to_be_killed", "--ignored", "--nocapture"]);
    let mut owner = owner.stdout(Stdio::piped()).spawn().unwrap();
    let output = BufReader::new(owner.stdout.take().unwrap());
    let line = output.lines().map(Result::unwrap).find(|line| line.starts_with("running ") && !line.contains("test")).unwrap();
    let pids = line.split(' ').skip(1).map(|pid| pid.parse().unwrap());
    let servers: Vec<Running> = pids.map(|pid| Running::now(pid).unwrap()).collect();
    assert_eq!(servers.len(), 2);
    let segments = shared_memory_of(servers[1].pid);
    assert!(!segments.is_empty());

    owner.kill().unwrap();
    owner.wait().unwrap();

    let killed_at = Instant::now();
    while servers.iter().any(Running::is_alive) {
        assert!(killed_at.elapsed() < GONE_DEADLINE, "the servers outlived the process that started them");
        std::thread::yield_now();
    }
    assert!(!exists_any(&segments), "the servers' shared memory outlived them");
}
