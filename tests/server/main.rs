//! The accept loop and the layers from outside: raw HTTP/2 over real TLS,
//! written against h2, so that what no gRPC client would send can be sent.

mod admin;
mod harness;
mod layers;
mod life;
mod raw;
mod reflection;
