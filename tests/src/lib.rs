//! The scenarios stand in `tests/`; this crate only names them.
