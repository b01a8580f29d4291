//! Worker, sandbox and SQLite together, in one process: each token's story, and
//! what is left when the process ends between two steps.

mod crashes;
mod kit;
mod nodes;
mod rights;
mod stories;
mod unheard;
