//! The arguments.

use std::net::SocketAddr;

use clap::Parser;

/// Keeps the policies of a cluster: bundles, the pods' own Secrets, status, admission.
#[derive(Debug, Parser)]
#[command(name = "exeat-operator", version)]
pub(crate) struct Arguments {
    /// The gate's image, by digest.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) sidecar_image: String,
    /// The image of `exeat-init`, by digest.
    #[arg(long, value_name = "IMAGE")]
    pub(crate) init_image: String,
    /// The namespace that the operator runs in.
    #[arg(long, default_value = "exeat-system", value_name = "NAMESPACE")]
    pub(crate) namespace: String,
    /// Where gates export their records.
    #[arg(long, value_name = "URL")]
    pub(crate) otlp: Option<String>,
    /// Name servers that gates ask, in place of the pod's.
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) nameserver: Vec<String>,
    /// Where the API server finds the webhooks.
    #[arg(long, default_value = "0.0.0.0:8443", value_name = "ADDRESS")]
    pub(crate) listen: SocketAddr,
    /// Where health and metrics are.
    #[arg(long, default_value = "0.0.0.0:8080", value_name = "ADDRESS")]
    pub(crate) health: SocketAddr,
    /// When kubelets pull the injected images.
    #[arg(long, default_value = "IfNotPresent", value_parser = ["Always", "IfNotPresent", "Never"])]
    pub(crate) image_pull_policy: String,
    /// Lets gates trust the roots in the ConfigMap `exeat-upstream-ca` of the pod's namespace too.
    #[arg(long)]
    pub(crate) upstream_ca: bool,
    /// Refuses pods with a container that does not say as which user it runs: an image's own user
    /// can be the gate's, and admission can't look into images.
    #[arg(long)]
    pub(crate) require_run_as_user: bool,
    /// What a record must survive before its call may go on (written, synced); the gate's own
    /// default without it.
    #[arg(long, value_name = "LEVEL")]
    pub(crate) durability: Option<String>,
    /// Another name or address that the webhooks are reached by, for an API server that does not go
    /// through the Service.
    #[arg(long, value_name = "NAME")]
    pub(crate) serving_name: Vec<String>,
    /// This replica's name in the lease and in Events.
    #[arg(
        long,
        env = "POD_NAME",
        default_value = "exeat-operator",
        value_name = "NAME"
    )]
    pub(crate) identity: String,
    /// The port that gates serve their status on.
    #[arg(long, default_value_t = crate::status::poll::STATUS_PORT, hide = true)]
    pub(crate) status_port: u16,
    /// What is logged, as `info` or `exeat_operator=debug`.
    #[arg(long, env = "EXEAT_LOG", default_value = "info", value_name = "FILTER")]
    pub(crate) log: String,
}

// === impl Arguments ===

impl Arguments {
    /// What the webhooks' certificate is for.
    pub(crate) fn names(&self) -> Vec<String> {
        let service = format!("exeat-operator.{}.svc", self.namespace);
        let mut names = vec![service.clone(), format!("{service}.cluster.local")];
        names.extend(self.serving_name.iter().cloned());
        names
    }
}
