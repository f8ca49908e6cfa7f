//! What `docs/spec/policy.md` says, case by case.

mod decisions;
mod document;
mod index;
mod kernel;
mod parts;
