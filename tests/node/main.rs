//! The node as users meet it: real processes, real TLS, free ports.
#![allow(missing_docs, missing_debug_implementations, unreachable_pub)]

mod canary;
mod chat;
mod cli;
mod clients;
mod config;
mod identity;
mod kill;
mod lifecycle;
mod otlp;
mod pay;
mod raw;
mod support;
mod talk;
