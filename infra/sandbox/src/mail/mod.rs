//! A mail server that keeps what it gets.
//!
//! It takes mail from anyone for anyone, with or without a login, and sends none on. It speaks SMTP as RFC 5321 says,
//! without encryption, because it listens on loopback only.

mod message;
mod session;

use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinSet;

pub(super) use message::Mail;

use crate::faults::Fault;

/// Where mails go.
pub(super) trait Inbox: Send + Sync {
    /// What is to go wrong with the mail that is about to be taken.
    fn fault(&self) -> Option<Fault>;

    /// Keeps a mail, and tells whether that was possible.
    fn keep(&self, mail: &Mail) -> bool;
}

/// Takes mail until `stopping` turns true; conversations that are open then are broken off.
pub(super) async fn serve(listener: TcpListener, inbox: Arc<dyn Inbox>, mut stopping: watch::Receiver<bool>) {
    let mut sessions = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            // An error means that nobody is left who could say so.
            _ = stopping.wait_for(|stopping| *stopping) => return,
        };
        match accepted {
            Ok((stream, _)) => {
                // Replies are small and waited for; a connection that refuses the option is only slower.
                let _ = stream.set_nodelay(true);
                let inbox = Arc::clone(&inbox);
                sessions.spawn(async move {
                    // Callers hang up as they like.
                    let _ = session::converse(stream, inbox.as_ref()).await;
                });
                // Collects those that are done, so that they do not pile up.
                while sessions.try_join_next().is_some() {}
            }
            Err(error) => {
                tracing::warn!(%error, "a caller could not be listened to");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}
