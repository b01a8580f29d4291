//! What is too much, and what is not a call: the layers between the accept loop
//! and the services.
//!
//! Outermost first: [`enrich`] gives every failed status its details, [`mod@panic`]
//! turns a panic into INTERNAL, [`canonical`] lets only calls through that are
//! written as gRPC writes them (with [`one`] message, where a method takes no
//! more), [`deadline`] stops work whose time is over,
//! [`shed`] bounds what the node handles at once, and (behind authentication)
//! [`rate`] bounds what one principal asks for. `server::stack` puts them
//! together with the layers of `security` and `telemetry`.
//!
//! Rules that hold for all of them:
//! - A refusal is a response, never an error: the service error is `Infallible`.
//! - They are always ready, like the generated services: waiting for a place is
//!   part of the response future, where it has a deadline.
//! - No layer boxes per call, but for the request's body, once; response bodies are wrapped in named types, so
//!   that what was taken for a stream is given back at the end of its body.

pub mod canonical;
pub mod deadline;
pub mod enrich;
pub mod held;
pub mod methods;
pub mod one;
pub mod panic;
pub mod rate;
pub mod reply;
pub mod shed;
