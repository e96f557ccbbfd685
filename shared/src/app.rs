//! What a function starts from: its settings, its clients and its clock, built once when the process starts.

use crate::clock::Clock;
use crate::config::Config;

/// Everything that a function's handler works with. Built once, borrowed by each invocation.
#[derive(Debug)]
pub struct App {
    function: &'static str,
    config: Config,
    clock: Clock,
}

/// What an [`App`] is built from where it is known already: on the local stack and in tests.
#[derive(Debug, Default)]
pub struct Parts {
    /// The time that everything is decided by.
    pub clock: Clock,
}

impl App {
    /// The function `function` with these settings and parts.
    #[must_use]
    pub fn new(function: &'static str, config: Config, parts: Parts) -> Self {
        Self {
            function,
            config,
            clock: parts.clock,
        }
    }

    /// The function's name, as its package has it.
    #[must_use]
    pub fn function(&self) -> &'static str {
        self.function
    }

    /// The settings.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The clock.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }
}
