//! What stands before several instances of a service: a balancer of connections that asks every instance whether it is ready, and hands new
//! connections to those that said so last.
//!
//! As Kubernetes' services do, it knows nothing of HTTP: a connection stays with its instance until one of its ends closes it, and what
//! breaks is not tried elsewhere.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{interval, timeout};

use crate::http_client;

/// How often every instance is asked, and how long it may take to answer.
const ASK_INTERVAL: Duration = Duration::from_millis(200);
const ASK_TIMEOUT: Duration = Duration::from_secs(1);

/// A balancer. It ends with the value, and the connections through it too.
#[derive(Debug)]
pub struct Balancer {
    url: String,
    _tasks: JoinSet<()>,
}

#[derive(Debug)]
struct Instance {
    url: String,
    address: String,
    is_ready: AtomicBool,
}

impl Balancer {
    /// A balancer before the instances at these URLs, on a port of 127.0.0.1.
    pub async fn before(urls: impl IntoIterator<Item = String>) -> anyhow::Result<Self> {
        let instance = |url: String| {
            let address = url.strip_prefix("http://").context("an instance's URL starts with http://")?.to_owned();
            Ok(Instance { url, address, is_ready: AtomicBool::new(true) })
        };
        let instances: Arc<[Instance]> = urls.into_iter().map(instance).collect::<anyhow::Result<_>>()?;
        let listener = TcpListener::bind("127.0.0.1:0").await.context("listen for a balancer")?;
        let url = format!("http://{}", listener.local_addr().context("ask for the balancer's address")?);
        let http = http_client::new(ASK_TIMEOUT)?;
        let mut tasks = JoinSet::new();
        for index in 0..instances.len() {
            tasks.spawn(ask(http.clone(), Arc::clone(&instances), index));
        }
        tasks.spawn(accept(listener, instances));
        Ok(Self { url, _tasks: tasks })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }
}

async fn ask(http: reqwest::Client, instances: Arc<[Instance]>, index: usize) {
    let instance = &instances[index];
    let mut ticks = interval(ASK_INTERVAL);
    loop {
        ticks.tick().await;
        let answer = http.get(format!("{}/ready", instance.url)).send().await;
        instance.is_ready.store(answer.is_ok_and(|answer| answer.status().is_success()), Ordering::Relaxed);
    }
}

async fn accept(listener: TcpListener, instances: Arc<[Instance]>) {
    let next = AtomicUsize::new(0);
    let mut connections = JoinSet::new();
    loop {
        // Those that have ended are forgotten.
        while connections.try_join_next().is_some() {}
        let Ok((mut near, _)) = listener.accept().await else { continue };
        let ready: Vec<_> = instances.iter().filter(|instance| instance.is_ready.load(Ordering::Relaxed)).collect();
        let chosen = ready.get(next.fetch_add(1, Ordering::Relaxed) % ready.len().max(1));
        // With nobody ready, the connection is closed at once.
        let Some(address) = chosen.map(|instance| instance.address.clone()) else { continue };
        connections.spawn(async move {
            let Ok(Ok(mut far)) = timeout(ASK_TIMEOUT, TcpStream::connect(address)).await else { return };
            let _ = (near.set_nodelay(true), far.set_nodelay(true));
            // Either end may break it; whoever is left notices.
            let _ = copy_bidirectional(&mut near, &mut far).await;
        });
    }
}
