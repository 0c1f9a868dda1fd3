//! The rival: a program that publishes each event by itself and waits for its acknowledgement.

use std::time::Instant;

use anyhow::Context as _;
use async_nats::{HeaderMap, header, jetstream};
use bytes::Bytes;
use domain::OrderId;
use event_store::STREAM;
use uuid::Uuid;

use crate::{
    closed_loop::{Client, Step},
    shop::{self, Ids},
};

const BASELINE: &str = "BASELINE";
const SEED: u64 = 1;

/// A stream with the settings of the log, and a connection of its own.
pub(super) struct Rival {
    jetstream: jetstream::Context,
    payload: Bytes,
}

impl Rival {
    pub(super) async fn set_up(nats_url: &str) -> anyhow::Result<Self> {
        let client = async_nats::connect(nats_url).await.context("connect to NATS")?;
        let jetstream = jetstream::new(client);
        let log = jetstream.get_stream(STREAM).await.context("look at the log")?;
        let config = jetstream::stream::Config {
            name: BASELINE.to_owned(),
            subjects: vec!["baseline.>".to_owned()],
            ..log.cached_info().config.clone()
        };
        jetstream.create_stream(config).await.context("create a stream like the log")?;
        let payload = shop::stored_bytes(OrderId(Uuid::from_u128(u128::MAX)), &shop::placed("TEA-1"));
        Ok(Self { jetstream, payload })
    }

    /// How large one event is.
    pub(super) fn event_bytes(&self) -> usize {
        self.payload.len()
    }

    /// So many publishers; those of different runs use different subjects and ids.
    pub(super) fn publishers(&self, concurrency: usize, run: usize) -> Vec<Publisher> {
        let publisher = |number| Publisher {
            jetstream: self.jetstream.clone(),
            payload: self.payload.clone(),
            ids: Ids::of(SEED, run * concurrency + number),
        };
        (0..concurrency).map(publisher).collect()
    }
}

pub(super) struct Publisher {
    jetstream: jetstream::Context,
    payload: Bytes,
    ids: Ids,
}

impl Client for Publisher {
    async fn step(&mut self) -> anyhow::Result<Step> {
        let id = self.ids.next().to_string();
        let subject = format!("baseline.order.{id}");
        let mut headers = HeaderMap::new();
        headers.insert(header::NATS_MESSAGE_ID, id);
        headers.insert("Content-Type", domain::envelope::CONTENT_TYPE);
        headers.insert(header::NATS_EXPECTED_LAST_SUBJECT_SEQUENCE, "0");
        let started = Instant::now();
        let acknowledgement = self.jetstream.publish_with_headers(subject, headers, self.payload.clone());
        acknowledgement.await.context("publish")?.await.context("wait for an acknowledgement")?;
        Ok(Step { took: started.elapsed(), counts: true })
    }
}
