//! The node as users meet it: real processes, real TLS, free ports.
#![allow(missing_docs, missing_debug_implementations, unreachable_pub)]

mod audit;
mod canary;
mod chat;
mod cli;
mod cli_input;
mod clients;
mod collector;
mod commands;
mod config;
mod disk;
mod durable;
mod exits;
mod failover;
mod identity;
mod kill;
mod lifecycle;
mod metrics;
mod operate;
mod otlp;
mod pay;
mod raw;
mod rooms;
mod stalled;
mod supervised;
mod support;
mod talk;
mod traffic;
mod trust;
