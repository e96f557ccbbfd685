//! SnapTrade's rate limit, kept by all instances of all functions together.
//!
//! SnapTrade counts the calls of the last 60 seconds and says in each answer how many there were. While that is
//! little, an instance just calls: nothing has to be agreed on, and no call to the table is made. Once more than a
//! quarter of the limit is used, tokens are needed, which lie in one item of the table. An instance takes several at
//! once, as many as it made calls in the last seconds, and they come back by themselves a while after they were taken.
//! What runs in the background leaves a third of them to those who wait.
//!
//! The limit is the one that SnapTrade's answers tell. As long as none of them has told one, nothing is held back, and
//! neither is it below [`LEAST_SHARED`], where there is nothing to share out; SnapTrade's own refusals are handled
//! either way.

mod instance;
mod tokens;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;

use instance::{Instance, Step};
pub use tokens::Urgency;
use tokens::{Refused, Tokens};

use crate::clock::Clock;
use crate::ids::TenantId;
use crate::snaptrade::{Gate, RateLimit};
use crate::store::{self, Condition, Item, Key, Outcome, Store, StoreError, partition};

/// A limit of fewer calls in a minute than this is not shared out.
pub const LEAST_SHARED: u32 = 30;

/// How often taking tokens is tried when others take some at the same time.
const TRIES: u32 = 4;

/// How long a call waits for tokens at most, that the table may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// How much of a limit may be used before tokens are needed.
const fn free(limit: u32) -> u32 {
    limit / 4
}

/// How many tokens there are for a limit. What is left over covers calls that were begun before their instance knew how
/// much is used.
const fn tokens(limit: u32) -> u32 {
    limit.saturating_mul(3) / 5
}

/// The share of one function's instance in SnapTrade's rate limit.
pub struct Budget {
    store: Store,
    clock: Clock,
    urgency: Urgency,
    instance: Mutex<Instance>,
    /// The tokens as they were seen last. One instance asks for some at a time.
    last: tokio::sync::Mutex<Option<Tokens>>,
}

impl Budget {
    /// The share of an instance of `function`.
    #[must_use]
    pub fn new(function: &str, store: Store, clock: Clock) -> Self {
        Self {
            store,
            clock,
            urgency: Urgency::of(function),
            instance: Mutex::default(),
            last: tokio::sync::Mutex::default(),
        }
    }

    fn instance(&self) -> MutexGuard<'_, Instance> {
        self.instance.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a call go, or says for how long it has to wait.
    async fn let_in(&self) -> Result<(), Duration> {
        if self.instance().step(self.clock.now()) == Step::Go {
            return Ok(());
        }
        // Whoever waited here may find tokens that the one before has taken.
        let mut last = self.last.lock().await;
        let now = self.clock.now();
        let step = self.instance().step(now);
        let Step::Take { wanted, limit } = step else {
            return Ok(());
        };
        let taken = match tokio::time::timeout(PATIENCE, self.take(&mut last, wanted, limit, now)).await {
            Ok(taken) => taken,
            Err(_) => Err(StoreError::Unavailable("it did not answer in time".to_owned())),
        };
        let mut instance = self.instance();
        match taken {
            Ok(Ok(tokens)) => {
                instance.granted(tokens, now);
                instance.step(now);
                Ok(())
            }
            Ok(Err(Refused { wait })) => {
                let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
                tracing::info!(wait_ms, "no token is left for a call to SnapTrade");
                Err(wait)
            }
            // SnapTrade keeps its limit itself, so a table that does not answer need not keep anybody from calling.
            Err(error) => {
                tracing::warn!(%error, "no tokens for calls to SnapTrade could be taken");
                instance.begin(now);
                Ok(())
            }
        }
    }

    /// Takes up to `wanted` tokens. One write; where others took some meanwhile, or there seems to be none, one more.
    async fn take(
        &self,
        last: &mut Option<Tokens>,
        wanted: u32,
        limit: u32,
        now: Timestamp,
    ) -> Result<Result<u32, Refused>, StoreError> {
        // The limit is that of our credentials, which all tenants share.
        let key = Key::new(partition(&TenantId::default(), "BUDGET", "snaptrade"), "BUDGET");
        let mut taken = Tokens::take(last.as_ref(), wanted, limit, self.urgency, now);
        if taken.is_err() {
            // What is remembered is not the newest.
            *last = found(self.store.get(&key, now).await?)?;
            taken = Tokens::take(last.as_ref(), wanted, limit, self.urgency, now);
        }
        for _ in 0..TRIES {
            let (next, granted) = match taken {
                Ok(taken) => taken,
                Err(refused) => return Ok(Err(refused)),
            };
            let condition = match last.as_ref() {
                Some(last) => Condition::Revision(last.rev()),
                None => Condition::Absent,
            };
            let item = store::to_item(&key, &next, None, None)?;
            match self.store.put(item, &condition, now).await? {
                // Another instance may have written the very same, so what stands there already is not one's own.
                Outcome::Won => {
                    *last = Some(next);
                    return Ok(Ok(granted));
                }
                Outcome::AlreadyMine => *last = Some(next),
                Outcome::Lost(there) => *last = found(there.into_iter().flatten().next())?,
            }
            taken = Tokens::take(last.as_ref(), wanted, limit, self.urgency, now);
        }
        // So many take tokens at once that it is no use to ask again now.
        let wait = Duration::from_secs(1);
        Ok(Err(Refused { wait }))
    }
}

/// The tokens in an item, where there is one.
fn found(item: Option<Item>) -> Result<Option<Tokens>, StoreError> {
    let item = item.filter(|item| !item.is_empty());
    item.as_ref().map(store::from_item).transpose()
}

impl Gate for Budget {
    fn admit(&self) -> Pin<Box<dyn Future<Output = Result<(), Duration>> + Send + '_>> {
        Box::pin(self.let_in())
    }

    fn answered(&self, said: Option<RateLimit>) {
        self.instance().answered(said);
    }
}

impl fmt::Debug for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Budget")
            .field("urgency", &self.urgency)
            .finish_non_exhaustive()
    }
}
