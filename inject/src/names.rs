//! Names, paths and numbers that the parts of a governed pod share with the rest of Exeat.
//!
//! They are the product's contract with hand-written manifests: changing one breaks those.

/// The container that confines the pod's network, and is then gone.
pub const GUARD: &str = "exeat-init";
/// The container that every call passes.
pub const SIDECAR: &str = "exeat-sidecar";
/// Containers, volumes and annotations whose names begin so belong to Exeat.
pub const RESERVED_PREFIX: &str = "exeat-";
/// The domain of labels and annotations that belong to Exeat.
pub const DOMAIN: &str = "exeat.dev";
/// The label on a namespace that puts its pods under the gate.
pub const GOVERNED_LABEL: &str = "exeat.dev/governed";

/// The user and group of the sidecar: the only user that the pod's network lets out.
pub const SIDECAR_ID: i64 = 64100;
/// Ports of the sidecar: transparent, explicit, health, DNS.
pub const SIDECAR_PORTS: [i64; 4] = [15001, 15002, 15021, 15053];

/// The namespace's compiled policies.
pub const POLICY_VOLUME: &str = "exeat-policy";
/// The pod's labels, which choose among them.
pub const POD_INFO_VOLUME: &str = "exeat-podinfo";
/// The pod's own Secret.
pub const CREDENTIALS_VOLUME: &str = "exeat-credentials";
/// The journal.
pub const JOURNAL_VOLUME: &str = "exeat-journal";
/// The certificate of the pod's own authority: the one volume that others may mount, to read it.
pub const CA_VOLUME: &str = "exeat-ca";
/// Where the guard's programs keep their lock.
pub const RUN_VOLUME: &str = "exeat-run";
/// Roots for upstreams beside the public ones.
pub const UPSTREAM_CA_VOLUME: &str = "exeat-upstream-ca";
/// Lies over the place where a service account's token would be mounted in our containers.
pub const NO_TOKEN_VOLUME: &str = "exeat-no-token";

/// Every volume of ours.
pub const VOLUMES: [&str; 8] = [
    POLICY_VOLUME,
    POD_INFO_VOLUME,
    CREDENTIALS_VOLUME,
    JOURNAL_VOLUME,
    CA_VOLUME,
    RUN_VOLUME,
    UPSTREAM_CA_VOLUME,
    NO_TOKEN_VOLUME,
];

/// The ConfigMap that the operator keeps in each governed namespace.
pub const POLICY_CONFIG_MAP: &str = "exeat-policies";
/// The ConfigMap with the roots of [`UPSTREAM_CA_VOLUME`].
pub const UPSTREAM_CA_CONFIG_MAP: &str = "exeat-upstream-ca";
/// What the name of a pod's own Secret begins with; [`SECRET_DIGITS`] hexadecimal digits follow.
pub const SECRET_PREFIX: &str = "exeat-pod-";
/// 64 bits: nobody meets another's name by chance.
pub const SECRET_DIGITS: usize = 16;

/// Where other containers find the gate's certificate.
pub const CA_FOLDER: &str = "/etc/exeat/ca";
/// The gate's certificate alone.
pub const CA_FILE: &str = "/etc/exeat/ca/ca.pem";
/// The system's roots and the gate's.
pub const CA_BUNDLE: &str = "/etc/exeat/ca/bundle.pem";
/// The same roots as Java reads them.
pub const CA_JAVA: &str = "/etc/exeat/ca/cacerts.jks";
/// [`CA_BUNDLE`], by its name in [`CA_VOLUME`].
pub const CA_BUNDLE_NAME: &str = "bundle.pem";
/// Where Debian, Ubuntu, Alpine, Arch and most others keep all their roots.
pub const SYSTEM_BUNDLE: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Folders that only our parts may be mounted in.
pub const RESERVED_FOLDERS: [&str; 2] = ["/etc/exeat", "/var/lib/exeat"];

/// Where Kubernetes mounts a service account's token in every container that does not say otherwise.
pub const TOKEN_FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// What its volume's name begins with when the API server adds it.
pub const TOKEN_VOLUME_PREFIX: &str = "kube-api-access-";
