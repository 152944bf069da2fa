//! Containers: plan, state, lifecycle, monitor, both isolation backends, the helper machine.

pub mod bundle;
pub mod paths;
pub mod plan;
pub mod state;
pub mod sys;
