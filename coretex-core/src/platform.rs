//! Wires a bus, stores and services into a running control plane.
