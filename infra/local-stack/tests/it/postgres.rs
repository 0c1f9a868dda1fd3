use local_stack::testing;
use sqlx::{Connection as _, PgConnection};

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
