//! VMM (see the package description).
