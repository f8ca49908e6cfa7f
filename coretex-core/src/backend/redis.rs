//! The stores on Redis. See `docs/spec/storage.md`.
