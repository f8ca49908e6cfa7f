//! One suite per trait, run against every backend.
