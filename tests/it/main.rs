//! Integration tests on the real program, a real kernel and real images. One binary: `make test`.
#![forbid(unsafe_code)]

mod basics;
mod images;
mod life;
mod machine;
mod outcomes;
mod terminal;
