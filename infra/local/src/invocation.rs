//! Running a function the way Lambda does: each invocation on its own, within a time limit, its panics contained, its
//! calls counted.

use std::sync::Arc;
use std::time::Duration;

use berth::telemetry::{CallCounts, Invocation, in_invocation, new_id};
use futures::future::BoxFuture;
use tokio::sync::watch;

use crate::calls::{CallLog, InvocationCalls};

/// Why an invocation gave no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum InvocationError {
    /// It panicked; the message stands in the log.
    #[error("the function {0} panicked")]
    Panicked(&'static str),
    /// It took longer than its time limit and was ended.
    #[error("the function {function} was ended after its time limit of {} seconds", .limit.as_secs())]
    TimedOut {
        /// The function.
        function: &'static str,
        /// Its limit.
        limit: Duration,
    },
    /// The stack stopped.
    #[error("the function {0} was ended because the stack stops")]
    CutOff(&'static str),
}

/// Runs invocations, and knows how many run.
#[derive(Debug, Clone)]
pub(crate) struct Invoker {
    log: Arc<CallLog>,
    limit: Duration,
    running: watch::Sender<usize>,
    cut_off: watch::Sender<bool>,
}

impl Invoker {
    /// An invoker that ends each invocation after `limit` and records its calls in `log`.
    pub(crate) fn new(log: Arc<CallLog>, limit: Duration) -> Self {
        Self {
            log,
            limit,
            running: watch::Sender::new(0),
            cut_off: watch::Sender::new(false),
        }
    }

    /// The same, but each invocation is ended after `limit`, which the function has of its own.
    pub(crate) fn with_limit(&self, limit: Duration) -> Self {
        Self {
            limit,
            ..self.clone()
        }
    }

    /// The time limit.
    pub(crate) fn limit(&self) -> Duration {
        self.limit
    }

    /// Invokes `function` by running `work`, which goes on to its end or limit even when the caller of this gives up,
    /// as an invocation in AWS does when the client hangs up. The calls are recorded under the id that `request_id`
    /// finds in the output, or under `fallback_id`.
    ///
    /// `work` is boxed, because a function's future is large, and each layer around it would hold it twice.
    pub(crate) async fn invoke<O: Send + 'static>(
        &self,
        function: &'static str,
        fallback_id: &str,
        request_id: fn(&O) -> Option<String>,
        work: BoxFuture<'static, O>,
    ) -> Result<O, InvocationError> {
        let invocation = Invocation {
            request_id: fallback_id.to_owned(),
            correlation_id: new_id(),
            function,
            cold_start: false,
        };
        let fallback_id = fallback_id.to_owned();
        let (log, limit) = (Arc::clone(&self.log), self.limit);
        let entry = Entry::new(&self.running);
        let record = move |output: Option<&O>, counts: CallCounts| {
            log.record(InvocationCalls {
                request_id: output.and_then(request_id).unwrap_or(fallback_id),
                function,
                dynamodb: counts.dynamodb,
                snaptrade: counts.snaptrade,
                access: counts.access,
                mail: counts.mail,
            });
        };
        let mut cut_off = self.cut_off.subscribe();
        let task = tokio::spawn(async move {
            let _entry = entry;
            let work = async {
                tokio::select! {
                    output = work => Ok(output),
                    () = tokio::time::sleep(limit) => Err(InvocationError::TimedOut { function, limit }),
                    // The invoker's own end is none of the invocation's.
                    Ok(_) = cut_off.wait_for(|cut_off| *cut_off) => Err(InvocationError::CutOff(function)),
                }
            };
            let (output, counts) = in_invocation(invocation, work).await;
            record(output.as_ref().ok(), counts);
            output
        });
        let failed = match task.await {
            Ok(Ok(output)) => return Ok(output),
            Ok(Err(error)) => error,
            Err(_) => InvocationError::Panicked(function),
        };
        tracing::error!(error = %failed, "an invocation failed");
        Err(failed)
    }

    /// Ends all that runs, as a crash would.
    pub(crate) fn cut_off(&self) {
        self.cut_off.send_replace(true);
    }

    /// Waits until nothing runs any more.
    pub(crate) async fn idle(&self) {
        // The sender lives as long as this, so the wait cannot fail.
        let _ = self.running.subscribe().wait_for(|running| *running == 0).await;
    }
}

/// Counts one invocation as running until it is dropped.
struct Entry(watch::Sender<usize>);

impl Entry {
    fn new(running: &watch::Sender<usize>) -> Self {
        running.send_modify(|count| *count = count.saturating_add(1));
        Self(running.clone())
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

#[cfg(test)]
mod tests {
    use berth::telemetry::{Service, count_call};

    use super::*;

    fn invoker() -> (Invoker, Arc<CallLog>) {
        let log = Arc::new(CallLog::default());
        (Invoker::new(Arc::clone(&log), Duration::from_millis(100)), log)
    }

    #[tokio::test]
    async fn an_invocations_calls_are_recorded_under_its_own_request_id() {
        let (invoker, log) = invoker();
        let answer = invoker
            .invoke(
                "register",
                "r-1",
                |id: &&str| Some((*id).to_owned()),
                Box::pin(async {
                    count_call(Service::DynamoDb);
                    count_call(Service::SnapTrade);
                    "r-2"
                }),
            )
            .await;
        assert_eq!(answer, Ok("r-2"));
        let calls = log.of(Some("r-2"));
        assert_eq!(
            (calls[0].function, calls[0].dynamodb, calls[0].snaptrade),
            ("register", 1, 1)
        );
    }

    #[tokio::test]
    async fn a_panic_an_endless_invocation_and_a_stop_are_errors_and_nothing_more() {
        let (invoker, _) = invoker();
        let none = |(): &()| None;
        let panicked = invoker
            .invoke("status", "r-1", none, Box::pin(async { panic!("oh") }))
            .await;
        assert_eq!(panicked, Err(InvocationError::Panicked("status")));
        let endless = invoker
            .invoke("status", "r-2", none, Box::pin(std::future::pending()))
            .await;
        assert!(matches!(endless, Err(InvocationError::TimedOut { .. })));
        invoker.cut_off();
        let cut_off = invoker
            .invoke("status", "r-3", none, Box::pin(std::future::pending()))
            .await;
        assert_eq!(cut_off, Err(InvocationError::CutOff("status")));
        invoker.idle().await;
    }

    #[tokio::test]
    async fn an_invocation_goes_on_when_its_caller_gives_up() {
        let (invoker, log) = invoker();
        let work = tokio::time::sleep(Duration::from_millis(30));
        let call = invoker.invoke("status", "r-1", |()| None, Box::pin(work));
        assert!(
            tokio::time::timeout(Duration::from_millis(5), call)
                .await
                .is_err()
        );
        assert!(log.of(None).is_empty());
        invoker.idle().await;
        assert_eq!(log.of(Some("r-1")).len(), 1);
    }
}
