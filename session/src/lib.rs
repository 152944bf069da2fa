//! Standard streams, terminals and signals of a process, carried as protocol frames.
#![forbid(unsafe_code)]
