//! The scenarios stand in `tests/`; this crate only names them, and compiles the README's examples.

/// The README, whose Rust examples are compiled with the documentation's tests.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
pub struct Readme;
