//! Starts the services and puts the layers around them.

use std::sync::Arc;

use http::Extensions;
use tower::Layer;

use super::lifetime::Running;
use super::tls::Tls;
use super::wiring::{Frames, Histories, Rooms};
use super::{Bound, StartError};
use crate::chat::metrics::ChatMetrics;
use crate::chat::service::{ApiLimits, ChatApi};
use crate::chat::{Chat, stream};
use crate::drain::Watch;
use crate::payment::{self, PaymentMetrics, Payments};
use crate::principal::Principal;
use crate::proto::{chat, identity, payment as payments, sandbox, transaction};
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
use crate::{clock, id, task, telemetry};

/// Our services on the public listener.
const OURS: [&str; 5] = [
    chat::v1::chat_service_server::SERVICE_NAME,
    identity::v1::identity_service_server::SERVICE_NAME,
    payments::v1::payment_service_server::SERVICE_NAME,
    sandbox::v1::sandbox_service_server::SERVICE_NAME,
    transaction::v1::transaction_service_server::SERVICE_NAME,
];

/// Everything that answers calls.
struct Services {
    chat: Chat,
    payments: Payments,
    transactions: Transactions,
}

/// Serves on both listeners; returns once the node is ready and `node.json`
/// says where.
pub(super) async fn start(
    mut bound: Bound,
    drain: Watch,
    drain_admin: Watch,
) -> Result<Running, StartError> {
    let starting = bound.readiness.hold("services started");
    let all = OURS.into_iter().chain([HEALTH]).chain(REFLECTION).collect::<Vec<_>>();
    let methods = Arc::new(Methods::mounted(&all).map_err(contracts)?);
    let layers = Layers::new(&bound.config.traffic, methods, principal, telemetry::trace_id);
    let services = start_services(&mut bound, &layers, &drain).await?;
    let routes = routes(&bound, &services, &drain)?;

    let red = Red::registered(&mut bound.registry);
    let counted = metrics::Metrics::default();
    counted.register(&mut bound.registry);
    bound.registry.register_collector(Box::new(layers.places.clone()));
    let Bound {
        config,
        dir,
        telemetry,
        registry,
        security,
        store,
        sandbox,
        readiness,
        public,
        admin,
    } = bound;
    let (public_address, admin_address) = (public.address(), admin.address());
    let shown = Admin {
        metrics: Arc::new(registry),
        readiness: readiness.clone(),
        health: health::server(readiness.clone(), drain.clone(), &OURS),
    };
    task::spawn("admin listener", admin::serve(admin, shown, drain_admin));

    let authorize = tower::layer::layer_fn(|routes| {
        security.authorize_layer().layer(NoteRoleLayer.layer(routes))
    });
    let stack = layers.around(&security.authenticate_layer(), &authorize, routes);
    let stack = TraceLayer::new(red, telemetry.propagates()).layer(stack);
    let limits = Limits::from(&config.traffic);
    let tls = Arc::new(Tls(security.clone()));
    let serving = accept::serve(public, tls, limits, stack, counted, drain.clone());
    let serving = task::spawn("public listener", serving);
    task::spawn("certificate files", security.clone().watch(drain));

    drop(starting);
    readiness.ready().await;
    dir.write_node_file(public_address, admin_address, security.ca_file())?;
    tracing::info!(public = %public_address, admin = %admin_address, node = dir.node_id(), "ready");
    let shutdown = config.shutdown;
    let chat = services.chat;
    Ok(Running { shutdown, readiness, chat, store, sandbox, security, telemetry, dir, serving })
}

async fn start_services(
    bound: &mut Bound,
    layers: &Layers,
    drain: &Watch,
) -> Result<Services, StartError> {
    let Bound { config, dir, registry, security, store, sandbox, readiness, .. } = bound;
    let chat = Chat::start(
        Arc::new(store.clone()),
        &config.chat,
        config.traffic.max_message_bytes,
        dir.node_id(),
        ChatMetrics::register(registry),
        drain.clone(),
        readiness,
        Some(Arc::new(Frames(layers.shares.clone()))),
        None,
    )
    .await?;
    let touched = Touched::new();
    let rooms = Arc::new(Rooms { router: chat.router(), view: chat.view() });
    let payments = Payments::start(payment::Parts {
        store: Arc::new(store.clone()),
        incarnation: id::fresh().to_string(),
        shared: false,
        provider: Arc::new(sandbox.clone()),
        config: config.payment.clone(),
        accounts: security.accounts(),
        receipts: rooms.clone(),
        membership: rooms,
        notifier: Arc::new(Histories(touched.clone())),
        metrics: PaymentMetrics::register(registry),
        clock: Arc::new(clock::System),
        drain: drain.clone(),
    })
    .await?;
    let transactions =
        Transactions::new(Arc::new(store.clone()), security.accounts(), touched, drain.clone());
    Ok(Services { chat, payments, transactions })
}

fn routes(bound: &Bound, services: &Services, drain: &Watch) -> Result<Routes, StartError> {
    let Bound { config, dir, store, sandbox, readiness, .. } = bound;
    let max = config.traffic.max_message_bytes;
    let limits = ApiLimits {
        max_body_bytes: config.chat.max_body_bytes,
        max_message_bytes: max,
        page_entries: config.chat.page_entries,
    };
    let Services { chat, payments, transactions } = services;
    let api = ChatApi::new(
        chat.router(),
        chat.view(),
        Arc::new(store.clone()),
        config.chat.partitions,
        limits,
    );
    let sandboxed = payments.sandbox_service(sandbox.clone());
    Ok(Routes::builder()
        .method(stream::PATH, chat.route(api.clone().service()))
        .service(api.service())
        .service(payments.service().max_decoding_message_size(max))
        .service(sandboxed.max_decoding_message_size(max))
        .service(transactions.clone().service().max_decoding_message_size(max))
        .service(IdentityService::new(dir.node_id()).service().max_decoding_message_size(max))
        .service(health::server(readiness.clone(), drain.clone(), &OURS))
        .service(reflection::v1(&OURS).map_err(contracts)?)
        .service(reflection::v1alpha(&OURS).map_err(contracts)?)
        .build())
}

/// The proven principal that authentication left for the layers inside of it.
fn principal(extensions: &Extensions) -> Option<&Principal> {
    extensions.get::<Authenticated>()?.principal()
}

fn contracts(error: impl std::fmt::Display) -> StartError {
    StartError::Contracts(error.to_string())
}
