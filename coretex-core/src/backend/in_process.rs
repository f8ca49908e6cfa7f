//! The bus in one process. See `docs/spec/bus.md`.
