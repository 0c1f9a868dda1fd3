//! Sending spans by OTLP.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use opentelemetry::KeyValue;
use opentelemetry_otlp::{ExporterBuildError, Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanExporter as _},
};
use tokio::{
    sync::{mpsc, oneshot},
    time::sleep,
};
use tracing::{info, warn};

use super::{
    recorder::Counts,
    settings::{TraceProtocol, TraceSettings},
};

/// Spans in one request.
const BATCH_MAX: usize = 1_024;
/// How long spans gather before they are sent.
const GATHERING: Duration = Duration::from_millis(500);
/// How often it is said that spans cannot be sent.
const COMPLAINT_INTERVAL: Duration = Duration::from_secs(60);

/// Sends what comes until the process ends, or until it is asked to flush.
pub(super) async fn run(
    service: &'static str,
    settings: TraceSettings,
    mut spans: mpsc::Receiver<SpanData>,
    mut asked: oneshot::Receiver<oneshot::Sender<()>>,
    counts: &'static Counts,
) {
    let mut sender = Sender { service, settings, exporter: None, complained: None };
    let mut batch = Vec::with_capacity(BATCH_MAX);
    let flushed = loop {
        tokio::select! {
            flushed = &mut asked => break flushed.ok(),
            taken = spans.recv_many(&mut batch, BATCH_MAX) => if taken == 0 { break None },
        }
        if batch.len() < BATCH_MAX {
            tokio::select! {
                flushed = &mut asked => break flushed.ok(),
                () = sleep(GATHERING) => {}
            }
            while batch.len() < BATCH_MAX
                && let Ok(span) = spans.try_recv()
            {
                batch.push(span);
            }
        }
        sender.send(std::mem::take(&mut batch), counts).await;
    };
    while let Ok(span) = spans.try_recv() {
        batch.push(span);
    }
    sender.send(batch, counts).await;
    if let Some(flushed) = flushed {
        // Whoever asked may have given up.
        let _ = flushed.send(());
    }
}

struct Sender {
    service: &'static str,
    settings: TraceSettings,
    exporter: Option<SpanExporter>,
    complained: Option<Instant>,
}

impl Sender {
    async fn send(&mut self, batch: Vec<SpanData>, counts: &Counts) {
        if batch.is_empty() {
            return;
        }
        let spans = batch.len() as u64;
        match self.try_send(batch).await {
            Ok(()) => {
                counts.sent.fetch_add(spans, Ordering::Relaxed);
            }
            Err(reason) => {
                counts.dropped.fetch_add(spans, Ordering::Relaxed);
                if self.complained.is_none_or(|at| at.elapsed() >= COMPLAINT_INTERVAL) {
                    self.complained = Some(Instant::now());
                    warn!(spans, "spans are lost, because the collector does not take them: {reason}");
                }
            }
        }
    }

    async fn try_send(&mut self, batch: Vec<SpanData>) -> Result<(), String> {
        if let Some(exporter) = &self.exporter {
            return exporter.export(batch).await.map_err(|error| error.to_string());
        }
        let mut reasons = Vec::new();
        for protocol in self.candidates() {
            let exporter = self.exporter(*protocol).map_err(|error| error.to_string())?;
            match exporter.export(batch.clone()).await {
                Ok(()) => {
                    info!(%protocol, "the collector takes spans by {protocol}");
                    self.exporter = Some(exporter);
                    return Ok(());
                }
                Err(error) => reasons.push(format!("{protocol}: {error}")),
            }
        }
        Err(reasons.join("; "))
    }

    /// The protocols to try, the one that is usual at the collector's port first: a server of HTTP/2 does not tell what it serves.
    fn candidates(&self) -> &'static [TraceProtocol] {
        match self.settings.protocol {
            Some(TraceProtocol::Grpc) => &[TraceProtocol::Grpc],
            Some(TraceProtocol::HttpProtobuf) => &[TraceProtocol::HttpProtobuf],
            None if self.settings.endpoint.trim_end_matches('/').ends_with(":4317") => {
                &[TraceProtocol::Grpc, TraceProtocol::HttpProtobuf]
            }
            None => &[TraceProtocol::HttpProtobuf, TraceProtocol::Grpc],
        }
    }

    fn exporter(&self, protocol: TraceProtocol) -> Result<SpanExporter, ExporterBuildError> {
        let endpoint = &self.settings.endpoint;
        let mut exporter = match protocol {
            TraceProtocol::Grpc => SpanExporter::builder().with_tonic().with_endpoint(endpoint).build()?,
            TraceProtocol::HttpProtobuf => SpanExporter::builder()
                .with_http()
                .with_protocol(Protocol::HttpBinary)
                .with_endpoint(self.settings.http_endpoint())
                .build()?,
        };
        exporter.set_resource(&resource(self.service));
        Ok(exporter)
    }
}

/// What the spans are of. `OTEL_RESOURCE_ATTRIBUTES` adds to it, and `OTEL_SERVICE_NAME` renames it.
fn resource(service: &'static str) -> Resource {
    let own = Resource::builder_empty()
        .with_attribute(KeyValue::new("service.name", service))
        .with_attribute(KeyValue::new("service.namespace", "contrail"))
        .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
        .with_attribute(KeyValue::new("process.pid", i64::from(std::process::id())))
        .build();
    let told = opentelemetry_sdk::resource::EnvResourceDetector::new();
    let mut resource =
        Resource::builder_empty().with_attributes(own.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())));
    resource = resource.with_detector(Box::new(told));
    if let Ok(name) = std::env::var("OTEL_SERVICE_NAME")
        && !name.is_empty()
    {
        resource = resource.with_service_name(name);
    }
    resource.build()
}
