use std::fs;
use std::net::TcpStream;

use local_stack::nats::NatsServer;
use local_stack::testing;

fn accepts_connections(server: &NatsServer) -> bool {
    TcpStream::connect(("127.0.0.1", server.port())).is_ok()
}

#[test]
fn a_killed_server_comes_back_on_the_same_port() {
    let mut server = testing::nats();
    let url = server.url().to_owned();
    assert!(accepts_connections(&server));

    server.kill();
    assert!(!accepts_connections(&server));

    server.start_again().unwrap();
    assert!(accepts_connections(&server));
    assert_eq!(server.url(), url);
}

#[test]
fn a_stopped_server_comes_back_with_another_process() {
    let mut server = testing::nats();
    let first = server.pid().unwrap();
    server.stop().unwrap();
    assert_eq!(server.pid(), None);
    server.start_again().unwrap();
    assert_ne!(server.pid().unwrap(), first);
}

#[test]
fn nothing_is_left_of_a_dropped_server() {
    let server = testing::nats();
    let (pid, port) = (server.pid().unwrap(), server.port());
    let folder = server.log().parent().unwrap().to_owned();
    assert!(folder.exists());
    drop(server);
    assert!(!folder.exists());
    assert!(!fs::exists(format!("/proc/{pid}")).unwrap());
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
}

#[test]
fn a_test_that_panics_leaves_nothing_behind() {
    let (report, folder) = std::sync::mpsc::channel();
    let panicked = std::thread::spawn(move || {
        let server = testing::nats();
        report.send(server.log().parent().unwrap().to_owned()).unwrap();
        panic!("on purpose");
    })
    .join();
    assert!(panicked.is_err());
    assert!(!folder.recv().unwrap().exists());
}
