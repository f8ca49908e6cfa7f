//! Real NATS and Redis servers as child processes that die with the test.
