//! Containers: plan, state, lifecycle, monitor, both isolation backends, the helper machine.

pub mod bundle;
