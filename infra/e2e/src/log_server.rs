//! The log's server, asked without the services.

use anyhow::Context as _;
use async_nats::jetstream::{self, stream::ClusterInfo};
use event_store::STREAM;
use local_stack::StackInfo;

/// A connection to the stack's NATS, to whichever of its servers is there.
pub(crate) async fn connect(info: &StackInfo) -> anyhow::Result<jetstream::Context> {
    let client = event_store::options(&info.nats).connect(event_store::servers(&info.nats)).await.context("connect to NATS")?;
    Ok(jetstream::new(client))
}

/// Who holds the log at this moment; `None` where it is not replicated.
pub(crate) async fn cluster(jetstream: &jetstream::Context) -> anyhow::Result<Option<ClusterInfo>> {
    let stream = jetstream.get_stream(STREAM).await.context("look at the log")?;
    Ok(stream.cached_info().cluster.clone())
}
