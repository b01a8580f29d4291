//! The composition root: bind, run, drain.
