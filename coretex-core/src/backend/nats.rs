//! The bus on core NATS and JetStream. See `docs/spec/bus.md`.
