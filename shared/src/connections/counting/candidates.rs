//! Which connection gives way when every place is taken.

use std::cmp::Reverse;

use jiff::Timestamp;

use crate::config::Policy;
use crate::connections::machine::ConnectionHolder;
use crate::connections::policy::Reason;
use crate::connections::timing;
use crate::snaptrade::ConnectionId;

/// What may give way.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Candidate<'a> {
    /// Whose it is.
    pub holder: &'a ConnectionHolder,
    /// The connection; `None` for a user whose secret no longer works, who goes as a whole.
    pub connection: Option<&'a ConnectionId>,
    /// When it was made; of several the first.
    pub since: Timestamp,
    /// Why it is this one.
    pub reason: Reason,
}

/// The connection that gives way by `policy`, and why; `None` where none may. Those of protected users never do.
///
/// Ties are broken by age, then by user id, then by connection id, so that everybody who looks sees the same one.
#[must_use]
pub fn choose(policy: Policy, holders: &[ConnectionHolder], now: Timestamp) -> Option<Candidate<'_>> {
    if policy == Policy::None {
        return None;
    }
    let mut chosen =
        holders
            .iter()
            .flat_map(|holder| of(holder, now))
            .min_by_key(|(candidate, broken)| {
                let active = candidate.holder.user.active();
                let first = match policy {
                    Policy::BrokenFirst => (Reverse(*broken), None),
                    Policy::LeastRecentlyActive => {
                        (Reverse(true), active.map(|active| active.last_active_at))
                    }
                    Policy::Oldest | Policy::None => (Reverse(true), None),
                };
                let user = candidate.holder.user.user_id.as_str();
                (first, candidate.since, user, candidate.connection)
            })?;
    chosen.0.reason = match policy {
        Policy::LeastRecentlyActive => Reason::LeastRecentlyActive,
        Policy::BrokenFirst if chosen.1 => Reason::Broken,
        _ => Reason::Oldest,
    };
    Some(chosen.0)
}

/// What of a user may give way, and whether it is broken.
fn of(holder: &ConnectionHolder, now: Timestamp) -> Vec<(Candidate<'_>, bool)> {
    let (user, record) = (&holder.user, &holder.record);
    let Some(active) = user.active() else {
        return Vec::new();
    };
    if user.protected || record.upstream.as_ref() != Some(&active.upstream) {
        return Vec::new();
    }
    let staying = record.ids.iter().filter(|(_, one)| one.leaving.is_none());
    if active.secret_rejected {
        // Nobody can look whether a visit that is over has left a connection; it is given up with the rest.
        let visited = record
            .portal
            .as_ref()
            .filter(|portal| timing::expired(portal.until, now))
            .map(|portal| portal.first);
        let since = staying.map(|(_, one)| one.since).chain(visited).min();
        let whole = since.map(|since| Candidate {
            holder,
            connection: None,
            since,
            reason: Reason::Oldest,
        });
        return whole.into_iter().map(|candidate| (candidate, true)).collect();
    }
    staying
        .map(|(id, one)| {
            let candidate = Candidate {
                holder,
                connection: Some(id),
                since: one.since,
                reason: Reason::Oldest,
            };
            (candidate, one.disabled)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::connections::records::{
        ActiveUser, ConnectionsRecord, CountedConnection, PortalKind, PortalPlace, UserRecord, UserState,
    };
    use crate::ids::{AttemptId, UpstreamId, UserId};
    use crate::user_secrets::SealedSecret;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + second).unwrap()
    }

    fn holder(name: &str, active_at: i64, connections: &[(&str, i64, bool)]) -> ConnectionHolder {
        let user_id = UserId::parse(name).unwrap();
        let (stem, attempt) = (user_id.stem(), AttemptId::from_random([1; 8]));
        let upstream = UpstreamId::mint(&stem, &attempt);
        let ids: BTreeMap<_, _> = connections
            .iter()
            .map(|(id, since, disabled)| {
                let counted = CountedConnection {
                    since: at(*since),
                    disabled: *disabled,
                    leaving: None,
                };
                (ConnectionId::new(*id), counted)
            })
            .collect();
        ConnectionHolder {
            user: UserRecord {
                user_id,
                stem: stem.clone(),
                rev: 1,
                created_at: at(0),
                protected: false,
                refused_at: None,
                state: UserState::Active(ActiveUser {
                    upstream: upstream.clone(),
                    secret: SealedSecret {
                        key_id: "k".to_owned(),
                        sealed: "s".to_owned(),
                    },
                    last_active_at: at(active_at),
                    connections: 0,
                    broken: false,
                    secret_rejected: false,
                }),
            },
            record: ConnectionsRecord {
                stem,
                rev: 1,
                epoch: 1,
                upstream: Some(upstream),
                ids,
                portal: None,
                reconciled_at: at(0),
            },
        }
    }

    fn chosen(policy: Policy, holders: &[ConnectionHolder]) -> Option<(Option<String>, Reason)> {
        choose(policy, holders, at(10_000)).map(|one| (one.connection.map(ToString::to_string), one.reason))
    }

    #[test]
    fn each_policy_has_its_own_first() {
        let holders = [
            holder("ada", 50, &[("a2", 20, false), ("a1", 10, false)]),
            holder("bob", 40, &[("b1", 15, false), ("b2", 30, true)]),
        ];
        let is = |id: &str, reason| Some((Some(id.to_owned()), reason));
        assert_eq!(chosen(Policy::Oldest, &holders), is("a1", Reason::Oldest));
        assert_eq!(
            chosen(Policy::LeastRecentlyActive, &holders),
            is("b1", Reason::LeastRecentlyActive)
        );
        assert_eq!(chosen(Policy::BrokenFirst, &holders), is("b2", Reason::Broken));
        assert_eq!(
            chosen(Policy::BrokenFirst, &holders[..1]),
            is("a1", Reason::Oldest)
        );
        assert_eq!(chosen(Policy::None, &holders), None);
    }

    #[test]
    fn ties_go_by_user_and_then_by_connection() {
        let holders = [
            holder("bob", 0, &[("b0", 10, false)]),
            holder("ada", 0, &[("a2", 10, false), ("a1", 10, false)]),
        ];
        assert_eq!(
            chosen(Policy::Oldest, &holders),
            Some((Some("a1".to_owned()), Reason::Oldest))
        );
    }

    #[test]
    fn protected_users_leaving_connections_and_those_of_another_registration_are_no_candidates() {
        let mut protected = holder("ada", 0, &[("a", 1, false)]);
        protected.user.protected = true;
        let mut leaving = holder("bob", 0, &[("b", 1, false)]);
        for one in leaving.record.ids.values_mut() {
            one.leaving = Some(at(5));
        }
        let mut before = holder("cy", 0, &[("c", 1, false)]);
        before.record.upstream = Some(UpstreamId::from_snaptrade("cy~aaaaaaaaaaaa"));
        assert_eq!(chosen(Policy::Oldest, &[protected, leaving, before]), None);
    }

    #[test]
    fn a_user_whose_secret_no_longer_works_goes_as_a_whole() {
        let mut rejected = holder("ada", 0, &[("a1", 10, false), ("a2", 20, false)]);
        let UserState::Active(active) = &mut rejected.user.state else {
            panic!("not active")
        };
        active.secret_rejected = true;
        let holders = [holder("bob", 0, &[("b", 15, false)]), rejected.clone()];
        assert_eq!(chosen(Policy::Oldest, &holders), Some((None, Reason::Oldest)));
        assert_eq!(
            chosen(Policy::BrokenFirst, &holders),
            Some((None, Reason::Broken))
        );
        // A visit that is over takes its place along; one under way does not.
        rejected.record.ids.clear();
        let mut portal = PortalPlace {
            attempt: AttemptId::from_random([2; 8]),
            kind: PortalKind::Visit,
            first: at(0),
            until: at(20_000),
            shared: false,
            after: None,
        };
        rejected.record.portal = Some(portal.clone());
        assert_eq!(chosen(Policy::Oldest, std::slice::from_ref(&rejected)), None);
        portal.until = at(9_000);
        rejected.record.portal = Some(portal);
        assert_eq!(chosen(Policy::Oldest, &[rejected]), Some((None, Reason::Oldest)));
    }
}
