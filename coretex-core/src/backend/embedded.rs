//! Every store on one embedded database. See `docs/spec/embedded.md`.
