//! The container's control groups: all limits in the unified hierarchy, and in those of cgroup v1 that
//! have its controllers.

mod files;
mod legacy;
mod unified;

pub use files::CgroupError;
pub(crate) use legacy::remove_all as remove_legacy;
pub(crate) use unified::Cgroup;
