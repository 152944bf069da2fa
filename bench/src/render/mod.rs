//! A report for people: a table for terminals, a page for browsers.

mod figure;
mod html;
mod table;

pub use html::html;
pub use table::table;
