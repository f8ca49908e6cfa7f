//! From requests to workers. See `docs/spec/scheduler.md`.
