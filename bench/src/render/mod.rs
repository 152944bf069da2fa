//! A report for people: a table for terminals, a page for browsers.

mod escape;
mod figure;
mod html;
mod plot;
mod table;

pub use html::html;
pub use table::table;
