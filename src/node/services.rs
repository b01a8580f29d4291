//! Starts the services and puts the layers around them.

use std::sync::{Arc, OnceLock};

use http::Extensions;
use prometheus_client::registry::Registry;
use tower::Layer;

use super::end::Watches;
use super::lifetime::Running;
use super::member::{self, Joining, Member};
use super::presence::Addresses;
use super::tls::Tls;
use super::wiring::{Frames, Histories, Interest, Rooms};
use super::{Bound, StartError, links};
use crate::chat::metrics::ChatMetrics;
use crate::chat::service::{ApiLimits, ChatApi};
use crate::chat::{Chat, Peers, stream};
use crate::cluster::driver::ClusterMetrics;
use crate::cluster::service::{ClusterApi, ClusterView};
use crate::config::schema::Traffic;
use crate::drain::Watch;
use crate::operate::{self as operators, OperatorApi};
use crate::payment::{self, PaymentMetrics, Payments};
use crate::principal::Principal;
use crate::proto::{chat, cluster, identity, operate, payment as payments, sandbox, transaction};
use crate::readiness::Guard;
use crate::security::authenticate::Authenticated;
use crate::security::identity::IdentityService;
use crate::server::accept::{self, Limits};
use crate::server::admin::{self, Admin};
use crate::server::routes::Routes;
use crate::server::stack::Layers;
use crate::server::{health, metrics, reflection};
use crate::telemetry::red::{NoteRoleLayer, Red};
use crate::telemetry::trace::TraceLayer;
use crate::traffic::methods::{HEALTH, Methods, REFLECTION};
use crate::transaction::{Touched, Transactions};
use crate::{clock, task, telemetry};

/// Our services on the public listener.
const OURS: [&str; 7] = [
    chat::v1::chat_service_server::SERVICE_NAME,
    cluster::v1::cluster_service_server::SERVICE_NAME,
    identity::v1::identity_service_server::SERVICE_NAME,
    operate::v1::operator_service_server::SERVICE_NAME,
    payments::v1::payment_service_server::SERVICE_NAME,
    sandbox::v1::sandbox_service_server::SERVICE_NAME,
    transaction::v1::transaction_service_server::SERVICE_NAME,
];

/// Everything that answers calls.
pub(super) struct Services {
    layers: Layers,
    /// Held until the listeners are open.
    starting: Guard,
    chat: Chat,
    payments: Payments,
    transactions: Transactions,
    cluster: Arc<dyn ClusterView>,
    member: Option<Member>,
    /// Set once every metric is registered.
    shown: Arc<OnceLock<Arc<Registry>>>,
}

/// Opens the node's doors: serves on all listeners. The node may not be ready
/// yet.
pub(super) fn serve(
    mut bound: Bound,
    services: Services,
    watches: Watches,
) -> Result<Running, StartError> {
    let Watches { public: drain, admin: drain_admin, .. } = watches;
    let routes = routes(&bound, &services, &drain)?;
    let mesh_address = bound.mesh();
    let Services { layers, starting, chat, member, shown, .. } = services;

    let red = Red::registered(&mut bound.registry);
    let counted = metrics::Metrics::default();
    counted.register(&mut bound.registry);
    bound.registry.register_collector(Box::new(layers.places.clone()));
    let Bound { config, dir, telemetry, registry, security, readiness, public, admin, .. } = bound;
    let addresses =
        Addresses { public: public.address(), mesh: mesh_address, admin: admin.address() };
    let health = health::server(readiness.clone(), drain.clone(), &OURS);
    let registry = Arc::new(registry);
    // Empty until now: nobody else sets it.
    let _ = shown.set(registry.clone());
    let answers = Admin { metrics: registry, readiness: readiness.clone(), health };
    bound.supervisor.watch(addresses.admin, drain_admin.clone());
    task::spawn("admin listener", admin::serve(admin, answers, drain_admin));

    let authorize = tower::layer::layer_fn(|routes| {
        security.authorize_layer().layer(NoteRoleLayer.layer(routes))
    });
    let stack = layers.around(&security.authenticate_layer(), &authorize, routes);
    let stack = TraceLayer::new(red, telemetry.calls()).layer(stack);
    let limits = Limits::from(&config.traffic);
    let tls = Arc::new(Tls(security.clone()));
    let serving = accept::serve(public, tls, limits, stack, counted, drain.clone());
    let serving = task::spawn("public listener", serving);
    task::spawn("certificate files", security.clone().watch(drain));

    drop(starting);
    Ok(Running {
        shutdown: config.shutdown,
        readiness,
        chat,
        member,
        database: bound.database,
        sandbox: bound.sandbox,
        security,
        telemetry,
        dir,
        serving,
        mesh: bound.mesh.map(|mesh| mesh.security),
        supervisor: bound.supervisor,
        addresses,
    })
}

/// The layers around everything that the public listener serves.
fn layers(traffic: &Traffic) -> Result<Layers, StartError> {
    let all = OURS.into_iter().chain([HEALTH]).chain(REFLECTION).collect::<Vec<_>>();
    let methods = Arc::new(Methods::mounted(&all).map_err(contracts)?);
    Ok(Layers::new(traffic, methods, principal, telemetry::trace_id))
}

/// Starts what answers calls; in a cluster the node takes part from then on.
/// Waits for the store, for others that seem to have the node's id, and for an
/// answer of those at which it knocks. Dropped half way, it leaves tasks that end
/// with the listeners, and maybe a row that says that the node is there.
pub(super) async fn start(bound: &mut Bound, watches: &Watches) -> Result<Services, StartError> {
    let Watches { public: drain, mesh: drain_mesh, .. } = watches;
    let starting = bound.readiness.hold("services started");
    let layers = layers(&bound.config.traffic)?;
    let touched = Touched::new();
    let cluster_metrics = ClusterMetrics::register(&mut bound.registry);
    let mesh_counted = metrics::Metrics::mesh(&mut bound.registry);
    let joining = Joining::new(bound, &touched).await?;
    let elsewhere = joining.as_ref().map(|joining| joining.links.clone());
    let store = bound.database.store();
    let Bound { config, dir, incarnation, registry, security, sandbox, readiness, .. } = bound;
    let chat = Chat::start(
        store.clone(),
        &config.chat,
        config.traffic.max_message_bytes,
        dir.node_id(),
        ChatMetrics::register(registry),
        drain.clone(),
        readiness,
        Some(Arc::new(Frames(layers.shares.clone()))),
        elsewhere.clone().map(|links| links as Arc<dyn Peers>),
    )
    .await?;
    let rooms = Arc::new(Rooms { router: chat.router(), view: chat.view() });
    let payments = Payments::start(payment::Parts {
        store: store.clone(),
        incarnation: incarnation.clone(),
        shared: elsewhere.is_some(),
        provider: Arc::new(sandbox.clone()),
        config: config.payment.clone(),
        accounts: security.accounts(),
        receipts: rooms.clone(),
        membership: rooms,
        notifier: Arc::new(Histories { here: touched.clone(), elsewhere }),
        metrics: PaymentMetrics::register(registry),
        clock: Arc::new(clock::System),
        drain: drain.clone(),
    })
    .await?;
    let transactions = Transactions::new(store, security.accounts(), touched, drain.clone());
    let partitions = chat.partitions();
    let (member, cluster) = match joining {
        None => (None, member::alone(bound, &cluster_metrics, partitions)),
        Some(joining) => {
            links::serve(bound, &joining.links, mesh_counted, drain_mesh)?;
            let joined = joining.join(bound, cluster_metrics, partitions, &payments, drain_mesh);
            let (member, view) = joined.await?;
            (Some(member), view)
        }
    };
    let shown = Arc::default();
    Ok(Services { layers, starting, chat, payments, transactions, cluster, member, shown })
}

fn routes(bound: &Bound, services: &Services, drain: &Watch) -> Result<Routes, StartError> {
    let Bound { config, dir, database, sandbox, readiness, .. } = bound;
    let max = config.traffic.max_message_bytes;
    let limits = ApiLimits {
        max_body_bytes: config.chat.max_body_bytes,
        max_message_bytes: max,
        page_entries: config.chat.page_entries,
    };
    let Services { chat, payments, transactions, cluster, .. } = services;
    let api =
        ChatApi::new(chat.router(), chat.view(), database.store(), config.chat.partitions, limits);
    let sandboxed = payments.sandbox_service(sandbox.clone());
    Ok(Routes::builder()
        .method(stream::PATH, chat.route(api.clone().service()))
        .service(api.service())
        .service(payments.service().max_decoding_message_size(max))
        .service(sandboxed.max_decoding_message_size(max))
        .service(transactions.clone().service().max_decoding_message_size(max))
        .service(ClusterApi::new(cluster.clone(), drain.clone()).service())
        .service(OperatorApi::new(operator_parts(bound, services, drain)).service())
        .service(IdentityService::new(dir.node_id()).service().max_decoding_message_size(max))
        .service(health::server(readiness.clone(), drain.clone(), &OURS))
        .service(reflection::v1(&OURS).map_err(contracts)?)
        .service(reflection::v1alpha(&OURS).map_err(contracts)?)
        .build())
}

/// What operators are answered from.
fn operator_parts(bound: &Bound, services: &Services, drain: &Watch) -> operators::Parts {
    let Bound { config, dir, telemetry, security, database, readiness, settings, .. } = bound;
    let links = services.member.as_ref().map(Member::links);
    operators::Parts {
        node_id: dir.node_id().to_owned(),
        store: database.store(),
        chat: services.chat.inspector(),
        cluster: services.cluster.clone(),
        followers: links.map(|links| Arc::new(Interest(links)) as Arc<dyn operators::Followers>),
        accounts: security.accounts(),
        message_ids_kept: config.chat.client_message_id_kept,
        levels: telemetry.levels().clone(),
        recent: telemetry.recent().clone(),
        settings: settings.clone(),
        metrics: services.shown.clone(),
        readiness: readiness.clone(),
        schema: database.newest_schema(),
        started_at: clock::Clock::now(&clock::System),
        drain: drain.clone(),
    }
}

/// The proven principal that authentication left for the layers inside of it.
pub(super) fn principal(extensions: &Extensions) -> Option<&Principal> {
    extensions.get::<Authenticated>()?.principal()
}

pub(super) fn contracts(error: impl std::fmt::Display) -> StartError {
    StartError::Contracts(error.to_string())
}
