//! Several nodes over one store: what readers and senders notice.

mod change;
mod hand_over;
mod links;
mod sessions;
