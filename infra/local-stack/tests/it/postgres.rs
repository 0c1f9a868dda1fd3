use local_stack::testing;
use sqlx::{Connection as _, PgConnection};

/// The segments of shared memory that a process has made and that somebody uses, by their ids.
pub(crate) fn shared_memory_of(pid: u32) -> Vec<u64> {
    let in_use = segments().filter(|columns| columns[4] == u64::from(pid) && columns[6] > 0);
    in_use.map(|columns| columns[1]).collect()
}

/// Whether one of these segments is still there.
pub(crate) fn exists_any(ids: &[u64]) -> bool {
    segments().any(|columns| ids.contains(&columns[1]))
}

/// Of each segment: its key, id, permissions, size, its creator's pid, the last user's pid, how many use it, and more.
fn segments() -> impl Iterator<Item = Vec<u64>> {
    let table = std::fs::read_to_string("/proc/sysvipc/shm").unwrap();
    let lines: Vec<String> = table.lines().skip(1).map(str::to_owned).collect();
    // A key may be negative.
    lines.into_iter().map(|line| line.split_ascii_whitespace().map(|column| column.parse().unwrap_or_default()).collect())
}

async fn count_of_things(url: &str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar("SELECT count(*) FROM things").fetch_one(&mut connection).await.unwrap()
}

#[tokio::test]
async fn committed_rows_survive_the_kill_of_the_server() {
    let mut server = testing::postgres();
    let url = server.create_database("shop").unwrap();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("CREATE TABLE things (id int); INSERT INTO things VALUES (1), (2)").execute(&mut connection).await.unwrap();

    server.kill();
    assert!(PgConnection::connect(&url).await.is_err());
    server.start_again().unwrap();

    assert_eq!(count_of_things(&url).await, 2);
    assert_eq!(server.create_database("shop").unwrap(), url, "creating a database that exists changes nothing");
    assert_eq!(count_of_things(&url).await, 2);
}

#[tokio::test]
async fn a_server_that_was_killed_again_and_again_comes_back() {
    let mut server = testing::postgres();
    for _ in 0..3 {
        // A connected client, whose backend outlives the postmaster for a moment.
        let _connection = PgConnection::connect(&server.admin_url()).await.unwrap();
        server.kill();
        server.start_again().unwrap();
    }
    PgConnection::connect(&server.admin_url()).await.unwrap();
}

#[test]
fn no_shared_memory_is_left_of_a_dropped_server() {
    let server = testing::postgres();
    let segments = shared_memory_of(server.pid().unwrap());
    assert!(!segments.is_empty());
    drop(server);
    assert!(!exists_any(&segments));
}

#[tokio::test]
async fn a_cloned_database_has_what_its_template_has() {
    let server = testing::postgres();
    let template = server.create_database("migrated").unwrap();
    let mut connection = PgConnection::connect(&template).await.unwrap();
    sqlx::raw_sql("CREATE TABLE things (id int); INSERT INTO things VALUES (1)").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();

    let clone = server.clone_template("migrated", "clone").unwrap();
    assert_eq!(count_of_things(&clone).await, 1);
    server.drop_database("clone").unwrap();
    assert!(PgConnection::connect(&clone).await.is_err());
}

#[tokio::test]
async fn every_test_has_its_own_database_and_drops_it() {
    let (one, other) = (testing::database(), testing::database());
    let mut connection = PgConnection::connect(one.url()).await.unwrap();
    sqlx::raw_sql("CREATE TABLE things (id int)").execute(&mut connection).await.unwrap();
    let mut elsewhere = PgConnection::connect(other.url()).await.unwrap();
    assert!(sqlx::raw_sql("SELECT * FROM things").execute(&mut elsewhere).await.is_err());

    let url = one.url().to_owned();
    // Although somebody is still connected to it.
    drop(one);
    assert!(PgConnection::connect(&url).await.is_err());
}

#[tokio::test]
async fn a_wrong_password_is_refused() {
    let server = testing::postgres();
    let url = server.admin_url();
    let (user, rest) = url.rsplit_once('@').unwrap();
    let wrong = format!("{user}x@{rest}");
    assert!(PgConnection::connect(&wrong).await.is_err());
}

#[test]
fn a_database_name_that_would_need_quotes_is_refused() {
    let server = testing::postgres();
    assert!(server.create_database("a\"; DROP DATABASE postgres").is_err());
}
