//! The mesh listener: where other nodes' links come in.
//!
//! The same accept loop and layers as the public listener's, with windows for
//! bursts, and one service. Only a certificate of the mesh bundle gets through
//! the handshake.

use std::sync::Arc;

use tower::Layer;

use super::services::{contracts, principal};
use super::tls::MeshTls;
use super::{Bound, StartError};
use crate::cluster::link::Links;
use crate::drain::Watch;
use crate::proto::cluster::v1::link_service_server;
use crate::server::accept::{self, Limits};
use crate::server::metrics;
use crate::server::routes::Routes;
use crate::server::stack::Layers;
use crate::traffic::methods::Methods;
use crate::{task, telemetry};

/// Serves links until the drain begins; what is open then goes on to its end.
pub(super) fn serve(
    bound: &mut Bound,
    links: &Arc<Links>,
    counted: metrics::Metrics,
    drain: &Watch,
) -> Result<(), StartError> {
    let Some(end) = &mut bound.mesh else { return Ok(()) };
    let Some(listener) = end.listener.take() else { return Ok(()) };
    let traffic = &bound.config.traffic;
    let served = [link_service_server::SERVICE_NAME];
    let methods = Arc::new(Methods::mounted(&served).map_err(contracts)?);
    let layers = Layers::new(traffic, methods, principal, telemetry::trace_id);
    let routes = Routes::builder().service(links.service()).build();
    let security = bound.security.clone();
    let authorize = tower::layer::layer_fn(|routes| security.authorize_layer().layer(routes));
    let stack = layers.around(&security.authenticate_layer(), &authorize, routes);
    let limits = Limits::mesh(traffic);
    let tls = Arc::new(MeshTls(end.security.clone()));
    let serving = accept::serve(listener, tls, limits, stack, counted, drain.clone());
    task::spawn("mesh listener", serving);
    task::spawn("mesh certificate files", end.security.clone().watch(drain.clone()));
    Ok(())
}
