//! docs/spec/policy.md §8, source by source.

mod base;
mod fragments;
mod signature;
