//! The storm where connections count: users ask for links to the portal, connect brokerages through them, and break and
//! delete what they have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::crowd::Crowd;
use crate::site::Site;

/// The brokerages of the sandbox that users connect. The same user and brokerage give the same connection.
const BROKERS: [&str; 3] = ["SANDBOX", "ALPACA", "QUESTRADE"];

/// What users have done at SnapTrade, as far as SnapTrade has said that it was done.
#[derive(Default)]
pub struct Links {
    /// Connections that were made, and whose they are.
    made: Mutex<BTreeMap<String, String>>,
    /// Connections that users deleted at SnapTrade.
    deleted: Mutex<BTreeSet<String>>,
    /// How often it is not known what SnapTrade did: it was killed meanwhile.
    uncertain: AtomicU32,
    refused: Mutex<Vec<String>>,
}

impl Links {
    /// The connections that were made and that no user has deleted.
    pub fn kept_by_users(&self) -> BTreeSet<String> {
        let deleted = self.deleted.lock().unwrap();
        let made = self.made.lock().unwrap();
        made.keys().filter(|id| !deleted.contains(*id)).cloned().collect()
    }

    /// The connections of a user that were made.
    pub fn of(&self, user: &str) -> BTreeSet<String> {
        let made = self.made.lock().unwrap();
        let theirs = made.iter().filter(|(_, owner)| *owner == user);
        theirs.map(|(id, _)| id.clone()).collect()
    }

    /// Whether it is known of everything that users did at SnapTrade whether it was done.
    pub fn is_certain(&self) -> bool {
        self.uncertain.load(Ordering::Relaxed) == 0
    }

    fn note_uncertain(&self) {
        self.uncertain.fetch_add(1, Ordering::Relaxed);
    }

    /// Those who had a link and whom SnapTrade refused for the limit.
    pub fn refused(&self) -> Vec<String> {
        self.refused.lock().unwrap().clone()
    }

    /// A user visits the portal once: asks for a link and connects a brokerage through it. Answers whether there was a
    /// link, and what to wait for where there was none.
    pub async fn visit(
        &self,
        site: &Site,
        crowd: &Crowd,
        user: &str,
        random: &mut fastrand::Rng,
    ) -> Result<(), Option<crate::crowd::Answer>> {
        let broker = BROKERS[random.usize(..BROKERS.len())];
        let moved = site.times_moved();
        let answer = crowd.connection_url(site, user).await;
        if answer.as_ref().is_none_or(|answer| answer.status != 200) {
            return Err(answer);
        }
        if random.u32(..20) == 0 {
            // The page is closed.
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(random.u64(..300))).await;
        // Where time was moved meanwhile, the page has run out.
        if site.times_moved() == moved {
            self.connect(site, user, broker).await;
        }
        Ok(())
    }

    /// Connects a brokerage through a link that was given out a moment ago.
    pub async fn connect(&self, site: &Site, user: &str, broker: &str) {
        let moved = site.times_moved();
        let connected = site
            .control(
                &site.urls().await,
                "connect",
                &json!({"user_id": user, "broker": broker}),
            )
            .await;
        let in_time = site.times_moved() == moved;
        match connected {
            Ok(connected) => {
                let id = connected["connection_id"].as_str().unwrap_or_default().to_owned();
                self.made.lock().unwrap().insert(id, user.to_owned());
            }
            // Whoever has a link has a place, as long as the link is good.
            Err(error) if in_time && error.contains("Connection Limit Reached") => {
                let refused =
                    format!("{user} had a link, and SnapTrade had no room for the connection: {error}");
                eprintln!("  {refused}");
                self.refused.lock().unwrap().push(refused);
            }
            Err(error) if error.contains("Connection Limit Reached") => {}
            // A stack that was killed took the sandbox along.
            Err(_) => self.note_uncertain(),
        }
    }

    /// A user breaks or deletes one of the connections, if there is any.
    pub async fn change(&self, site: &Site, user: &str, random: &mut fastrand::Rng) {
        let theirs: Vec<String> = self.of(user).into_iter().collect();
        let Some(id) = random.choice(&theirs) else {
            return;
        };
        let change = if random.bool() { "break" } else { "delete" };
        let call = format!("connections/{id}/{change}");
        if change == "delete" {
            // Noted first: where the answer is lost, it is not known whether it is gone.
            self.deleted.lock().unwrap().insert(id.clone());
        }
        match site.control(&site.urls().await, &call, &Value::Null).await {
            Ok(_) => {}
            // It had given way before.
            Err(error) if error.contains("404") => {
                if change == "delete" {
                    self.deleted.lock().unwrap().remove(id);
                }
            }
            Err(_) => self.note_uncertain(),
        }
    }
}
