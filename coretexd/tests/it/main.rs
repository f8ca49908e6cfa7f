//! The daemon as a process, against real servers and real workers.

mod faults;
mod interop;
