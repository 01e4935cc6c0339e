//! The watches: one for each kind, over the whole cluster, reduced as they come in.

use std::fmt::Debug;
use std::sync::Arc;

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1 as core;
use kube::core::{DynamicObject, PartialObjectMeta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use tokio::task::JoinSet;

use super::cache::Table;
use super::{CONFIG_MAP, Control, reduce};
use crate::api;

/// Objects in one answer to a list: bounds the memory that a large cluster takes at start.
const PAGE: u32 = 500;

/// Starts all of them.
pub(super) fn spawn(tasks: &mut JoinSet<()>, client: &Client, control: &Arc<Control>) {
    let config = watcher::Config::default().page_size(PAGE);

    let cx = Arc::clone(control);
    let spaces = watcher(
        Api::<PartialObjectMeta<core::Namespace>>::all(client.clone()),
        config.clone(),
    );
    tasks.spawn(follow(
        "namespaces",
        spaces.default_backoff(),
        cx,
        |c| &c.cache.spaces,
        |_, object: &PartialObjectMeta<core::Namespace>| Some(reduce::space(object)),
        |c, _, name| c.queue.add(name),
    ));

    let policies = watcher(api::tool_policies(client), config.clone());
    tasks.spawn(follow(
        "toolpolicies",
        policies.default_backoff(),
        Arc::clone(control),
        |c| &c.cache.policies,
        |_, object: &DynamicObject| Some(reduce::policy(object, api::TOOL_POLICY)),
        |c, namespace, _| c.queue.add(namespace),
    ));

    let guardrails = watcher(api::cluster_tool_policies(client), config.clone());
    tasks.spawn(follow(
        "clustertoolpolicies",
        guardrails.default_backoff(),
        Arc::clone(control),
        |c| &c.cache.guardrails,
        |_, object: &DynamicObject| Some(reduce::policy(object, api::CLUSTER_TOOL_POLICY)),
        |c, _, _| {
            c.queue.add_all(c.cache.known_namespaces());
            c.guardrails_changed.notify_one();
        },
    ));

    let secrets = watcher(
        Api::<PartialObjectMeta<core::Secret>>::all(client.clone()),
        config.clone(),
    );
    tasks.spawn(follow(
        "secrets",
        secrets.default_backoff(),
        Arc::clone(control),
        |c| &c.cache.secrets,
        |_, object: &PartialObjectMeta<core::Secret>| Some(reduce::secret(object)),
        |c, namespace, _| c.add_if_concerned(namespace),
    ));

    let pods = watcher(Api::<core::Pod>::all(client.clone()), config.clone());
    tasks.spawn(follow(
        "pods",
        pods.default_backoff(),
        Arc::clone(control),
        |c| &c.cache.pods,
        |_, object: &core::Pod| Some(reduce::pod(object)),
        |c, namespace, _| c.add_if_concerned(namespace),
    ));

    let named = config.fields(&format!("metadata.name={CONFIG_MAP}"));
    let bundles = watcher(Api::<core::ConfigMap>::all(client.clone()), named);
    tasks.spawn(follow(
        "configmaps",
        bundles.default_backoff(),
        Arc::clone(control),
        |c| &c.cache.bundles,
        |c, object: &core::ConfigMap| reduce::bundle(object, &c.seal),
        |c, namespace, _| c.queue.add(namespace),
    ));
}

/// Follows one kind for ever. `changed` is told of each object that is not as it was.
async fn follow<K, R>(
    kind: &'static str,
    stream: impl futures_util::Stream<Item = Result<Event<K>, watcher::Error>> + Send,
    control: Arc<Control>,
    table: fn(&Control) -> &Table<R>,
    reduce: fn(&Control, &K) -> Option<R>,
    changed: fn(&Control, &str, &str),
) where
    K: Resource + Debug,
    R: PartialEq,
{
    let mut stream = std::pin::pin!(stream);
    let table = table(&control);
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Init) => table.begin(),
            Ok(Event::InitApply(object)) => {
                if let Some(row) = reduce(&control, &object) {
                    table.listed(
                        &object.namespace().unwrap_or_default(),
                        &object.name_any(),
                        row,
                    );
                }
            }
            Ok(Event::InitDone) => {
                for (namespace, name) in table.end() {
                    changed(&control, &namespace, &name);
                }
            }
            Ok(Event::Apply(object)) => {
                let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
                let Some(row) = reduce(&control, &object) else {
                    continue;
                };
                let before = table.put(&namespace, &name, row);
                let now = table.get(&namespace, &name);
                if before != now {
                    changed(&control, &namespace, &name);
                }
            }
            Ok(Event::Delete(object)) => {
                let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
                table.remove(&namespace, &name);
                changed(&control, &namespace, &name);
            }
            Err(error) => {
                control.metrics.watch_errors.inc();
                tracing::warn!(kind, %error, "watch interrupted; trying again");
            }
        }
    }
}
