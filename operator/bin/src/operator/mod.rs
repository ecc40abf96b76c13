//! `netsplit operator`: testnets and experiments as objects of a cluster.
//!
//! Every operator serves HTTP and the table server's port; one of them leads, by a Lease. The leader reconciles Testnets
//! ([`testnet`]), follows their nodes and drives their Experiments ([`experiment`]) in the same sessions as one machine
//! does. Faults are what the Experiments that exist ask for, and nothing else: they are handed to the agents whole and
//! under a lease, so that neither a deleted object nor a dead operator leaves one behind, without any finalizer.

mod certificate;
mod context;
mod election;
mod events;
mod experiment;
mod fleet;
mod http;
mod metrics;
mod tenure;
mod testnet;
mod time;
mod turns;

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context as _, Result};
use clap::Args;
use kube::Client;
use netsplit_backend::kubernetes::{Images, TableHub, TablesAddress, TablesTls, tables::ApiReviewer};
use tonic::transport::{Identity, Server, ServerTlsConfig};

use self::{context::Context, election::Election, metrics::Metrics};
use crate::{session::unix_ms, shutdown::Shutdown};

/// How the operator is run; the chart gives all of it.
#[derive(Clone, Debug, Args)]
pub struct OperatorArgs {
    /// Only look after this namespace; without it after all
    #[arg(long, value_name = "NAME")]
    pub namespace: Option<String>,
    /// Image of the nodes
    #[arg(long, value_name = "IMAGE", default_value = concat!("netsplit-node:", env!("CARGO_PKG_VERSION")))]
    pub node_image: String,
    /// Image of the link agents: this program's own
    #[arg(long, value_name = "IMAGE", default_value = concat!("netsplit:", env!("CARGO_PKG_VERSION")))]
    pub agent_image: String,
    /// Always, IfNotPresent or Never
    #[arg(long, value_name = "POLICY", default_value = "IfNotPresent")]
    pub image_pull_policy: String,
    /// Where link agents are served
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:26610")]
    pub listen_tables: SocketAddr,
    /// Where /metrics, /live and /ready are served
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    pub listen_http: SocketAddr,
    /// The Service by which link agents find all operators; a name with a dot is taken as it is
    #[arg(long, value_name = "NAME", default_value = "netsplit-tables")]
    pub tables_service: String,
    /// The name of this pod
    #[arg(long, value_name = "NAME", env = "POD_NAME", default_value = "netsplit-operator")]
    pub pod_name: String,
    /// Where this pod is: the operator keeps its own objects there
    #[arg(long, value_name = "NAME", env = "POD_NAMESPACE", default_value = "default")]
    pub pod_namespace: String,
}

impl OperatorArgs {
    fn tables_dns(&self) -> String {
        if self.tables_service.contains('.') {
            return self.tables_service.clone();
        }
        format!("{}.{}.svc", self.tables_service, self.pod_namespace)
    }

    fn images(&self) -> Images {
        Images {
            node: self.node_image.clone(),
            agent: self.agent_image.clone(),
            pull_policy: self.image_pull_policy.clone(),
        }
    }
}

/// Runs until it is asked to end (SIGTERM, SIGINT).
pub async fn run(args: OperatorArgs) -> Result<()> {
    let shutdown = Shutdown::on_signals()?;
    let client =
        Client::try_default().await.context("cannot reach a cluster: run it in a pod, or set KUBECONFIG")?;
    let metrics = Metrics::new()?;
    let hub = TableHub::new(Arc::new(ApiReviewer::new(client.clone())));
    let tls = certificate::get_or_make(&client, &args.pod_namespace, &args.tables_dns()).await?;
    let tables = TablesAddress {
        service_dns: args.tables_dns(),
        port: args.listen_tables.port(),
        ca_pem: tls.ca_pem.clone(),
    };
    let identity = format!("{}-{:x}", args.pod_name, unix_ms());
    let election = Election::new(client.clone(), &args.pod_namespace, identity);
    tracing::info!(tables = %args.listen_tables, http = %args.listen_http, "the operator runs");
    tokio::select! {
        ended = http::serve(args.listen_http, metrics.clone()) => ended,
        ended = serve_tables(args.listen_tables, &hub, &tls) => ended,
        () = govern(&args, client, election, &hub, tables, &metrics, &shutdown) => Ok(()),
    }
}

/// Stands for election, and leads whenever it has won, until it is asked to end.
async fn govern(
    args: &OperatorArgs,
    client: Client,
    mut election: Election,
    hub: &Arc<TableHub>,
    tables: TablesAddress,
    metrics: &Metrics,
    shutdown: &Shutdown,
) {
    loop {
        let (term, tenure) = tokio::select! {
            won = election.win() => won,
            () = shutdown.asked() => return,
        };
        tracing::info!(term, "this operator leads");
        hub.lead(term);
        metrics.leader.set(1);
        let client = tenure.client(client.clone());
        let context = Context::new(client, args.clone(), Arc::clone(hub), tables.clone(), metrics.clone());
        let is_over = tokio::select! {
            () = lead(&context) => false,
            reason = election.keep() => {
                tracing::warn!(reason, "this operator leads no more");
                false
            }
            () = shutdown.asked() => true,
        };
        // Whatever this leader has under way ends here; what is in force stays until its lease ends, or a successor goes
        // on with it.
        context.fleet.abandon();
        hub.resign();
        metrics.leader.set(0);
        if is_over {
            election.resign().await;
            return;
        }
    }
}

/// All that a leader does; ends only if it cannot go on.
async fn lead(context: &Arc<Context>) {
    let experiments = experiment::controller(context);
    let testnets = testnet::controller(context, experiments.store());
    tokio::select! {
        () = testnets => tracing::error!("the controller of testnets ended"),
        () = experiments.run() => tracing::error!("the controller of experiments ended"),
        () = context.fleet.sweep(&context.metrics) => {}
    }
}

async fn serve_tables(address: SocketAddr, hub: &Arc<TableHub>, tls: &TablesTls) -> Result<()> {
    let identity = Identity::from_pem(&tls.certificate_pem, &tls.key_pem);
    Server::builder()
        .tls_config(ServerTlsConfig::new().identity(identity))
        .context("the table server's certificate is of no use")?
        .http2_keepalive_interval(Some(std::time::Duration::from_secs(2)))
        .http2_keepalive_timeout(Some(std::time::Duration::from_secs(4)))
        .add_service(hub.service())
        .serve(address)
        .await
        .with_context(|| format!("cannot serve link agents at {address} (--listen-tables)"))
}
