//! The least that any rebuild does: read every message, and write its bytes.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use async_nats::jetstream::{
    self,
    consumer::{DeliverPolicy, pull},
};
use futures::StreamExt as _;
use local_stack::StackInfo;
use sqlx::{Connection as _, Executor as _, PgConnection};
use tokio::sync::mpsc;

const STREAM: &str = "EVENTS";
/// Sent to Postgres at a time, as much as `projectors` does.
const CHUNK_BYTES: usize = 64 * 1024;
/// Chunks that may wait for Postgres while the next are read.
const CHUNKS_WAITING_MAX: usize = 64;
/// The header and the trailer of Postgres' binary COPY.
const HEADER: &[u8] = b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0";
const TRAILER: [u8; 2] = (-1_i16).to_be_bytes();

/// Reads so many messages and copies them into a table of one column and no index. Reading and writing go on at the same time.
pub(super) async fn measure(info: &StackInfo, events: usize) -> anyhow::Result<Duration> {
    let client = event_store::options(&info.nats).connect(&info.nats).await.context("connect to NATS")?;
    let stream = jetstream::new(client).get_stream(STREAM).await.context("find the log")?;
    let mut connection = PgConnection::connect(&info.database).await.context("connect to Postgres")?;
    connection.execute("DROP TABLE IF EXISTS bare; CREATE TABLE bare (bytes bytea NOT NULL)").await.context("make a bare table")?;

    let started = Instant::now();
    let config = pull::OrderedConfig { deliver_policy: DeliverPolicy::All, ..pull::OrderedConfig::default() };
    let consumer = stream.create_consumer(config).await.context("create a consumer")?;
    let mut messages = consumer.messages().await.context("read the log")?;
    let (chunks, mut waiting) = mpsc::channel::<Vec<u8>>(CHUNKS_WAITING_MAX);
    let reading = async move {
        let mut chunk = HEADER.to_vec();
        for _ in 0..events {
            let message = messages.next().await.context("the log ends early")?.context("read a message")?;
            push(&mut chunk, &message.payload);
            if chunk.len() >= CHUNK_BYTES {
                chunks.send(std::mem::take(&mut chunk)).await.context("Postgres has ended")?;
            }
        }
        chunk.extend_from_slice(&TRAILER);
        chunks.send(chunk).await.context("Postgres has ended")
    };
    let writing = async {
        let mut copy = connection.copy_in_raw("COPY bare (bytes) FROM STDIN (FORMAT binary)").await.context("begin to copy")?;
        while let Some(chunk) = waiting.recv().await {
            copy.send(chunk).await.context("copy a chunk")?;
        }
        let rows = copy.finish().await.context("finish copying")?;
        ensure!(rows == events as u64, "{rows} rows were copied, not {events}");
        Ok(())
    };
    tokio::try_join!(reading, writing)?;
    let elapsed = started.elapsed();
    connection.execute("DROP TABLE bare").await.context("drop the bare table")?;
    // The server notices an unclean end as well.
    let _ = connection.close().await;
    Ok(elapsed)
}

fn push(chunk: &mut Vec<u8>, bytes: &[u8]) {
    chunk.extend_from_slice(&1_i16.to_be_bytes());
    let length = i32::try_from(bytes.len()).expect("a message has at most some megabytes");
    chunk.extend_from_slice(&length.to_be_bytes());
    chunk.extend_from_slice(bytes);
}
