//! Registrations at the limit, all at once, while SnapTrade takes long to delete somebody and counts those whom it has
//! not finished deleting.

use std::time::Duration;

use futures::future::join_all;
use serde_json::json;

use crate::Arguments;
use crate::crowd::Crowd;
use crate::site::Site;

/// How often all of them come.
const WAVES: u32 = 3;

/// How often somebody asks again whose place is kept. Each waits as long as it is told, so that the deletion is over.
const TRIES: u32 = 5;

/// Lets waves of newcomers come to a limit that is reached. Whoever is told that a place is kept has to get it, without
/// anybody else giving way.
///
/// # Errors
/// When the wave cannot be raised, or a place that was kept was not there.
pub async fn rage(site: &Site, crowd: &Crowd, arguments: &Arguments) -> Result<(), String> {
    let filling = (0..arguments.limit).map(|number| format!("first-{number}"));
    for user in filling {
        let answer = crowd.register(site, &user).await;
        if answer.is_none_or(|answer| answer.status != 201) {
            return Err(format!("{user} could not be registered"));
        }
    }
    let deletion = Duration::from_secs(arguments.deletion_seconds.into());
    let slow = json!({"delete_delay_ms": arguments.deletion_seconds.saturating_mul(1000)});
    site.control(&site.urls().await, "settings", &slow).await?;
    for wave in 0..WAVES {
        let newcomers: Vec<String> = (0..arguments.at_once)
            .map(|number| format!("wave-{wave}-{number}"))
            .collect();
        let got = join_all(newcomers.iter().map(|user| get_a_place(site, crowd, user))).await;
        let got: Vec<bool> = got.into_iter().collect::<Result<_, _>>()?;
        let registered = got.into_iter().filter(|got| *got).count();
        eprintln!(
            "  wave {}: {registered} of {} were registered",
            wave + 1,
            newcomers.len()
        );
        if registered == 0 {
            return Err("nobody was registered, though everybody could have given way".to_owned());
        }
    }
    // The deletions that are under way end before the settling, which moves the clock.
    tokio::time::sleep(deletion).await;
    Ok(())
}

/// One newcomer: asks once, and again only where a place is kept.
async fn get_a_place(site: &Site, crowd: &Crowd, user: &str) -> Result<bool, String> {
    let mut kept = false;
    for _ in 0..TRIES {
        let answer = crowd.register(site, user).await.ok_or("the stack is gone")?;
        match (answer.status, answer.code()) {
            (201, _) if kept && !answer.body["evicted"].is_null() => {
                return Err(format!(
                    "a place was kept for {user} and somebody gave way for another"
                ));
            }
            (201, _) => return Ok(true),
            (503, "deletion_pending") => {
                kept = true;
                tokio::time::sleep(Duration::from_secs(answer.retry_after.unwrap_or(1))).await;
            }
            // All places are taken by those who are about to register.
            (409, "connection_limit_reached") | (503, "unavailable") if !kept => return Ok(false),
            _ => return Err(format!("{user} was answered {} {}", answer.status, answer.body)),
        }
    }
    Err(format!(
        "a place was kept for {user}, who did not get it in {TRIES} tries"
    ))
}
