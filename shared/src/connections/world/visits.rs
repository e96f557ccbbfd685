//! What counting connections adds to the world: brokerage connections, links to the portal, and what must hold of them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::super::counting::VISIT;
use super::super::counting::admission::Admitted;
use super::super::machine::*;
use super::super::records::*;
use super::super::timing;
use super::{Fate, MAX, World};
use crate::ids::{AttemptId, Stem, UpstreamId};
use crate::snaptrade::ConnectionId;

/// A connection at SnapTrade.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in super::super) struct Connected {
    pub(in super::super) id: ConnectionId,
    pub(in super::super) upstream: UpstreamId,
    since: Timestamp,
    pub(in super::super) deleting: bool,
    /// It was made when its place was gone already. Nothing can prevent that, and it is counted all the same.
    late: bool,
}

/// A link to the portal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Link {
    upstream: UpstreamId,
    until: Timestamp,
    /// Who took the place under which it was given out.
    place: AttemptId,
}

impl World {
    fn accepts(&self, upstream: &UpstreamId) -> bool {
        let lives = self
            .upstream
            .iter()
            .any(|incarnation| incarnation.id == *upstream);
        lives && !self.rejected.contains(upstream)
    }

    pub(super) fn perform_on_connections(&mut self, effect: Effect, fate: Fate) -> Input {
        match effect {
            Effect::ReadBooks => Input::Books(Box::new(Books {
                slots: self.slots.clone(),
                records: self.connections.values().cloned().collect(),
            })),
            Effect::ReadGhost(upstream) => Input::Ghost(self.ghosts.get(&upstream).cloned().map(Box::new)),
            Effect::ReadStatistics => Input::Statistics(match fate {
                Fate::Answered => Some(u32::try_from(self.connected.len()).unwrap()),
                _ => None,
            }),
            Effect::ReadConnectionHolders(_) => {
                let holder = |record: &ConnectionsRecord| {
                    let user = self.users.get(&record.stem)?.clone();
                    let record = record.clone();
                    Some(ConnectionHolder { user, record })
                };
                Input::ConnectionHolders(self.connections.values().filter_map(holder).collect())
            }
            Effect::ListConnections(user) => {
                let upstream = user.upstream().unwrap();
                Input::ConnectionsListed(match fate {
                    Fate::Answered if !self.accepts(upstream) => Err(NotListed::SecretRejected),
                    Fate::Answered => Ok(self.connections_of(upstream)),
                    _ => Err(NotListed::Fault(Fault::Timeout)),
                })
            }
            Effect::DeleteConnection(user, id) => {
                Input::ConnectionDeleted(self.disconnection(user.upstream().unwrap(), &id, fate))
            }
            Effect::NoteRejected(user) => {
                if let Some(record) = self.users.get_mut(&user.stem)
                    && record.upstream() == user.upstream()
                    && let UserState::Active(active) = &mut record.state
                {
                    active.secret_rejected = true;
                }
                Input::Noted
            }
            other => panic!("nothing to do with connections: {other:?}"),
        }
    }

    fn connections_of(&self, upstream: &UpstreamId) -> Vec<ListedConnection> {
        let own = self.connected.iter().filter(|one| one.upstream == *upstream);
        own.map(|one| ListedConnection {
            id: one.id.clone(),
            created_at: Some(one.since),
            disabled: false,
        })
        .collect()
    }

    fn disconnection(&mut self, upstream: &UpstreamId, id: &ConnectionId, fate: Fate) -> Disconnection {
        if !self.accepts(upstream) {
            return Disconnection::SecretRejected;
        }
        Disconnection::Answered(match fate {
            Fate::Refused => Deletion::Refused(Fault::Error),
            Fate::LostBefore | Fate::Late => Deletion::Unknown(Fault::Timeout),
            Fate::LostAfter => {
                self.disconnect(id);
                Deletion::Unknown(Fault::Timeout)
            }
            _ => self.disconnect(id),
        })
    }

    fn disconnect(&mut self, id: &ConnectionId) -> Deletion {
        let Some(one) = self.connected.iter_mut().find(|one| one.id == *id) else {
            return Deletion::NotThere;
        };
        one.deleting = true;
        if !self.slow {
            self.finish_deletions();
        }
        Deletion::Queued
    }

    /// Connections go when SnapTrade finishes deleting them, or their user.
    pub(super) fn finish_disconnections(&mut self) {
        let living: BTreeSet<UpstreamId> = self.list().collect();
        self.connected
            .retain(|one| !one.deleting && living.contains(&one.upstream));
    }

    /// SnapTrade answers with a link; a visit that outlasts the place is not what is looked at here.
    pub(in super::super) fn give_link(&mut self, stem: &Stem, admitted: &Admitted) {
        let upstream = self.users.get(stem).and_then(|user| user.upstream().cloned());
        if let (Some(place), Some(upstream)) = (&admitted.place, upstream) {
            let link = Link {
                upstream,
                until: place.until.min(timing::after(self.now(), VISIT)),
                place: place.attempt.clone(),
            };
            self.links.insert(stem.clone(), link);
        }
    }

    /// Users who have a link that they may follow.
    pub(in super::super) fn invited(&self) -> impl Iterator<Item = &Stem> {
        self.links.keys()
    }

    /// A user follows the link and connects a brokerage.
    pub(in super::super) fn follow(&mut self, stem: &Stem) {
        let Some(link) = self.links.remove(stem) else {
            return;
        };
        let mut living = self.upstream.iter().filter(|incarnation| !incarnation.deleting);
        if link.until <= self.now() || !living.any(|incarnation| incarnation.id == link.upstream) {
            return;
        }
        self.made += 1;
        let record = self.connections.get(stem);
        let portal = record.and_then(|record| record.portal.as_ref());
        let placed = portal.is_some_and(|portal| portal.attempt == link.place);
        // A second one under the same place, while the books do not know of the first, is late as well.
        let unknown = self.connected.iter().any(|one| {
            one.upstream == link.upstream && !record.is_some_and(|record| record.ids.contains_key(&one.id))
        });
        self.connected.push(Connected {
            late: !placed || unknown,
            id: ConnectionId::new(format!("c{}", self.made)),
            upstream: link.upstream,
            since: self.now(),
            deleting: false,
        });
    }

    /// Nobody visits the portal any more, and every secret works again.
    pub(in super::super) fn calm(&mut self) {
        self.links.clear();
        self.rejected.clear();
        for user in self.users.values_mut() {
            if let UserState::Active(active) = &mut user.state {
                active.secret_rejected = false;
            }
        }
        self.now_ms += 7_200_000;
    }

    /// Whoever gives way is not protected, and gives way only when every place is taken, to somebody who has none;
    /// without a place only where there are more than the limit allows.
    pub(super) fn judge_disconnections(&mut self, commit: &Commit) {
        let mut token = commit.token.split('.');
        let (attempt, step) = (token.next().unwrap(), token.next().unwrap());
        if !["evict", "shrink"].contains(&step) {
            return;
        }
        let slots = self.slots.as_ref().unwrap();
        let taken = slots.in_use + slots.elsewhere;
        if taken < MAX || step == "shrink" && taken == MAX {
            self.breaks("I6: no connection gives way while there is room");
        }
        let mut portals = self
            .connections
            .values()
            .filter_map(|record| record.portal.as_ref());
        if portals.any(|portal| portal.attempt.as_str() == attempt) {
            self.breaks("I6: one place costs one eviction");
        }
        let protected = commit.writes.iter().any(|write| {
            let victim = match write {
                Write::User {
                    stem,
                    becomes: Change::Gone,
                    ..
                } => Some(stem),
                Write::Connections {
                    stem,
                    becomes: Change::Put(record),
                    ..
                } => {
                    let before = self.connections.get(stem).map_or(0, ConnectionsRecord::leaving);
                    (record.leaving() > before).then_some(stem)
                }
                _ => None,
            };
            victim
                .and_then(|stem| self.users.get(stem))
                .is_some_and(|user| user.protected)
        });
        if protected {
            self.breaks("I6: nobody who is protected gives way");
        }
    }

    /// The rule on connections that this state breaks.
    pub(super) fn fault_of_connections(&self, slots: &Slots) -> Option<&'static str> {
        let counted = || {
            self.connections
                .values()
                .filter(|record| record.epoch == slots.epoch)
        };
        let places: u32 = counted().map(ConnectionsRecord::places).sum();
        let ghosts = self
            .ghosts
            .values()
            .filter(|ghost| ghost.state != GhostState::Gone);
        let leaving = counted().map(ConnectionsRecord::leaving).sum::<u32>()
            + ghosts.map(|ghost| ghost.connections).sum::<u32>();
        if (slots.in_use, slots.leaving) != (places, leaving) {
            return Some("I2: the places in use are the connections that stay and the visits");
        }
        let visits: BTreeMap<&Stem, HeldPortal> = counted()
            .filter_map(|record| {
                let portal = record.portal.as_ref()?;
                let held = HeldPortal {
                    until: portal.until,
                    kind: portal.kind,
                };
                Some((&record.stem, held))
            })
            .collect();
        if !visits
            .into_iter()
            .eq(slots.portals.iter().map(|(stem, held)| (stem, *held)))
        {
            return Some("I2: every visit stands among the places, and nothing else does");
        }
        let living = self.connected.iter().filter(|one| !one.late).count();
        (slots.open && living > MAX as usize).then_some("I1: connections are never more than the limit")
    }

    /// What is left undone of connections when all is calm and the sync has run.
    pub(in super::super) fn connections_unhealed(&self) -> Option<&'static str> {
        let slots = self.slots.as_ref()?;
        if !slots.open || !slots.portals.is_empty() || slots.leaving != 0 {
            return Some("I9: the sync leaves the places open, and no visit and nothing that is leaving");
        }
        let records = self.connections.values();
        let counted: BTreeSet<&ConnectionId> = records.flat_map(|record| record.ids.keys()).collect();
        let there: BTreeSet<&ConnectionId> = self.connected.iter().map(|one| &one.id).collect();
        (counted != there || slots.in_use as usize != there.len())
            .then_some("I9: the sync leaves SnapTrade and the books naming the same connections")
    }
}
