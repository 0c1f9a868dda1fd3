//! The log's server, asked without the services.

use std::path::Path;

use anyhow::Context as _;
use async_nats::jetstream::{self, stream::ClusterInfo};
use event_store::{NatsAccess, NatsArgs, STREAM};
use local_stack::StackInfo;
use telemetry::settings::Mistakes;

/// Where the stack's log is, as whoever may do everything.
pub(crate) fn access(info: &StackInfo) -> anyhow::Result<NatsAccess> {
    let file = |path: &Path| path.display().to_string();
    let args = NatsArgs {
        nats_url: Some(info.nats.clone()),
        nats_nkey_seed_file: info.nats_files.as_ref().map(|files| file(files.seed_of_admin())),
        nats_ca_file: info.nats_files.as_ref().map(|files| file(&files.authorities)),
    };
    let mut mistakes = Mistakes::new();
    let access = args.required(&mut mistakes);
    mistakes.finish()?;
    access.context("a NATS URL")
}

/// A connection to the stack's NATS, to whichever of its servers is there.
pub(crate) async fn connect(info: &StackInfo) -> anyhow::Result<jetstream::Context> {
    let access = access(info)?;
    let client = access.options().connect(access.servers()).await.context("connect to NATS")?;
    Ok(jetstream::new(client))
}

/// Who holds the log at this moment; `None` where it is not replicated.
pub(crate) async fn cluster(jetstream: &jetstream::Context) -> anyhow::Result<Option<ClusterInfo>> {
    let stream = jetstream.get_stream(STREAM).await.context("look at the log")?;
    Ok(stream.cached_info().cluster.clone())
}
