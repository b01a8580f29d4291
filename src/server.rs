//! The accept loop, health, reflection and the admin listener.
