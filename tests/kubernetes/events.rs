//! What happens to a deployment. Each event leaves three ready nodes.

mod certificates;
mod pods_gone;
mod releases;
mod rollouts;
mod single;
mod tools;
mod traces;

use futures_util::future::LocalBoxFuture;

use crate::clients::Clients;
use crate::site::Site;

/// One event.
pub struct Event {
    pub name: &'static str,
    /// Whether a call may fail: where the store itself was away.
    pub may_fail_calls: bool,
    /// Makes it happen and checks it; what is worth telling.
    pub run: for<'a> fn(&'a Site, &'a Clients) -> LocalBoxFuture<'a, String>,
}

/// A name and an async function as an event.
macro_rules! event {
    ($name:literal, $run:path) => {
        event!($name, $run, false)
    };
    ($name:literal, $run:path, $may_fail:literal) => {
        Event {
            name: $name,
            may_fail_calls: $may_fail,
            run: |site, clients| Box::pin($run(site, clients)),
        }
    };
}

/// All of them, in their order.
pub const EVENTS: &[Event] = &[
    event!("every manifest passes a server-side dry run", rollouts::dry_run),
    event!("rollouts", rollouts::restart),
    event!("scale 3, 5, 2, 3", rollouts::scale),
    event!("a pod deleted", pods_gone::delete),
    event!("evictions against the budget", pods_gone::evict),
    event!("bad manifests", rollouts::bad_manifests),
    event!("a bad image stops a rollout", rollouts::bad_image),
    event!("a bad configuration stops a rollout", rollouts::bad_configuration),
    event!("rotated certificates", certificates::rotated),
    event!("wrong certificates", certificates::wrong),
    event!("kill -9 in a container", pods_gone::kill),
    event!("the release before and back", releases::roll),
    event!("a trace across the pods", traces::across),
    event!("alerts", tools::alerts),
    event!("an operator's tools", tools::operator),
    event!("one node on a volume", single::on_a_volume),
    event!("PostgreSQL restarted", pods_gone::store, true),
];
