//! `berth local --tour`: the main journey, walked through on a running stack.

use berth_local::Stack;

use crate::exit::Exit;

/// Walks through the journey on `stack`.
pub(crate) async fn run(_stack: &Stack) -> Exit {
    Exit::failed("this version has no tour yet: start without --tour")
}
