//! What is too much, and what is not a call.
