//! The operations on the limit at the edge: in whose name they are done, and what a caller is told when they fail.

use super::call::Call;
use super::fields::{Fields, Input, user_id};
use super::identity::Role;
use super::problem::{Code, Problem};
use crate::app::App;
use crate::connections::leaving::NotLeft;
use crate::connections::machine::Fault;
use crate::connections::registration::Refusal;
use crate::connections::runner::NoSecret;
use crate::connections::sync::NotSynced;
use crate::connections::{Connections, Failure};
use crate::ids::UserId;

/// A body that may name the user whom a request is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedUser {
    /// The user, where one is named.
    pub user_id: Option<UserId>,
}

impl Input for NamedUser {
    fn read(fields: &mut Fields<'_>) -> Option<Self> {
        let named = fields.optional("user_id", user_id);
        Some(Self { user_id: named? })
    }
}

impl Call {
    /// The operations on the limit of the caller's tenant, in the caller's name.
    #[must_use]
    pub fn connections<'a>(&self, app: &'a App) -> Connections<'a> {
        let kind = match self.identity.role {
            Role::User => "user",
            Role::Operator => "operator",
        };
        let actor = format!("{kind}:{}", self.identity.user_id);
        Connections::new(app, self.identity.tenant.clone(), actor, self.is_operator())
    }
}

impl From<Failure> for Problem {
    fn from(failure: Failure) -> Self {
        let cause = failure.to_string();
        let problem = match failure {
            Failure::Refused(refusal) => refused(refusal),
            Failure::NotLeft(NotLeft::Unknown) | Failure::NoSuchUser => {
                Self::new(Code::NotFound).detail("There is no such user.")
            }
            Failure::NotLeft(NotLeft::InProgress { retry_after }) => in_progress(retry_after),
            Failure::NotLeft(NotLeft::Snaptrade(fault)) => fault_problem(&fault).detail(
                "SnapTrade did not take the deletion. The user is on the way out; the sync goes on with it.",
            ),
            Failure::NotSynced(NotSynced::Running { retry_after }) => Self::new(Code::OperationInProgress)
                .detail("Another sync is running.")
                .retry_after(seconds(retry_after)),
            Failure::NotSynced(NotSynced::Snaptrade(fault)) | Failure::Snaptrade(fault) => {
                fault_problem(&fault)
            }
            Failure::NotLeft(NotLeft::Busy) | Failure::NotSynced(NotSynced::Busy) => busy(),
            Failure::SecretRejected => Self::new(Code::SecretInvalid),
            Failure::NoSecret(NoSecret::NotRegistered) => Self::new(Code::NotRegistered),
            Failure::NoSecret(NoSecret::Keys(_) | NoSecret::Sealed(_)) => Self::new(Code::Unavailable),
            Failure::Store(error) => error.into(),
        };
        problem.because(cause)
    }
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::InProgress { retry_after } => in_progress(retry_after),
        Refusal::ExistsUpstream => Problem::new(Code::UserExistsUpstream),
        Refusal::LimitReached { retry_after } => {
            let problem = Problem::new(Code::ConnectionLimitReached);
            match retry_after {
                Some(wait) => problem
                    .detail("Every place is taken, and those that could give way are being used right now.")
                    .retry_after(seconds(wait)),
                None => problem,
            }
        }
        Refusal::HoldsThrottled { retry_after } => Problem::new(Code::RateLimited)
            .detail("Too many places are held without being used, or your last one was not used.")
            .retry_after(seconds(retry_after)),
        Refusal::DeletionPending { retry_after } => {
            Problem::new(Code::DeletionPending).retry_after(seconds(retry_after))
        }
        Refusal::Busy => busy(),
        Refusal::Snaptrade(fault) => fault_problem(&fault),
    }
}

fn in_progress(retry_after: u64) -> Problem {
    Problem::new(Code::OperationInProgress)
        .detail("The same user is being registered or deleted right now.")
        .retry_after(seconds(retry_after))
}

fn busy() -> Problem {
    Problem::new(Code::Unavailable).retry_after(2)
}

fn fault_problem(fault: &Fault) -> Problem {
    match fault {
        Fault::Timeout => Problem::new(Code::UpstreamTimeout),
        Fault::Error => Problem::new(Code::UpstreamError),
        Fault::RateLimited(wait) => {
            let wait = u32::try_from(wait.as_millis().div_ceil(1_000)).unwrap_or(u32::MAX);
            Problem::new(Code::RateLimited)
                .detail("SnapTrade wants fewer calls.")
                .retry_after(wait)
        }
    }
}

fn seconds(wait: u64) -> u32 {
    u32::try_from(wait).unwrap_or(u32::MAX)
}
