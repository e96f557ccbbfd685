//! What all requests share: the world behind a lock, its file, the clock, and the deliveries that are under
//! way.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use berth::clock::Clock;
use jiff::Timestamp;
use secrecy::SecretString;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use super::StartError;
use super::rate::RateWindow;
use super::webhooks;
use super::world::World;
use crate::faults::Faults;
use crate::held;
use crate::journal::Journal;

/// The running sandbox's state. It holds secrets, so it cannot be printed.
pub(super) struct Shared {
    pub(super) clock: Clock,
    pub(super) consumer_key: SecretString,
    /// For webhooks.
    pub(super) http: reqwest::Client,
    /// Where the sandbox itself can be reached, for the portal's links.
    pub(super) base_url: String,
    webhook_url: Option<String>,
    state_file: Option<PathBuf>,
    world: Mutex<World>,
    pub(super) faults: Mutex<Faults>,
    pub(super) rate: Mutex<RateWindow>,
    pub(super) journal: Mutex<Journal>,
    tasks: Mutex<JoinSet<()>>,
    /// Wakes the task that completes what is due, when something new became due.
    pub(super) due_changed: Notify,
    /// Turns true when the sandbox is about to stop, so that nobody waits for an answer any longer.
    pub(super) stopping: watch::Sender<bool>,
}

impl Shared {
    /// State as it was left in `state_file`, or new.
    ///
    /// # Errors
    /// [`StartError::State`] when the file is there and cannot be read.
    pub(super) fn new(
        clock: Clock,
        consumer_key: SecretString,
        http: reqwest::Client,
        base_url: String,
        webhook_url: Option<String>,
        state_file: Option<PathBuf>,
    ) -> Result<Self, StartError> {
        let world = match &state_file {
            Some(path) => read(path)?,
            None => World::default(),
        };
        Ok(Self {
            clock,
            consumer_key,
            http,
            base_url,
            webhook_url,
            state_file,
            world: Mutex::new(world),
            faults: Mutex::default(),
            rate: Mutex::default(),
            journal: Mutex::default(),
            tasks: Mutex::default(),
            due_changed: Notify::new(),
            stopping: watch::Sender::new(false),
        })
    }

    /// Looks at the world, after what is due by now was done.
    pub(super) fn world<T>(self: &Arc<Self>, look: impl FnOnce(&World, Timestamp) -> T) -> T {
        let now = self.clock.now();
        let mut world = held(&self.world);
        if world.settle(now) {
            self.finish(&mut world);
        }
        look(&world, now)
    }

    /// Changes the world, saves it, and delivers the events that came of it without waiting for them.
    pub(super) fn change<T>(self: &Arc<Self>, change: impl FnOnce(&mut World, Timestamp) -> T) -> T {
        let now = self.clock.now();
        let mut world = held(&self.world);
        world.settle(now);
        let result = change(&mut world, now);
        self.finish(&mut world);
        result
    }

    /// Changes the world and saves it. The events that came of it are the caller's to deliver.
    pub(super) fn change_and_tell<T>(
        self: &Arc<Self>,
        change: impl FnOnce(&mut World, Timestamp) -> T,
    ) -> (T, Vec<String>) {
        let now = self.clock.now();
        let mut world = held(&self.world);
        if world.settle(now) {
            self.finish(&mut world);
        }
        let result = change(&mut world, now);
        let told = std::mem::take(&mut world.outbox);
        self.finish(&mut world);
        (result, told)
    }

    /// Changes the world and saves it, where no events can come of the change.
    pub(super) fn change_quietly<T>(&self, change: impl FnOnce(&mut World, Timestamp) -> T) -> T {
        let mut world = held(&self.world);
        let result = change(&mut world, self.clock.now());
        self.save(&world);
        result
    }

    /// Runs something beside the requests until it is done or the sandbox stops.
    pub(super) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = held(&self.tasks);
        // Collects those that are done, so that they do not pile up.
        while tasks.try_join_next().is_some() {}
        tasks.spawn(task);
    }

    /// Ends what runs beside the requests.
    pub(super) fn stop_tasks(&self) {
        held(&self.tasks).abort_all();
    }

    /// Where webhooks go now, if anywhere.
    pub(super) fn webhook_target(&self) -> Option<String> {
        held(&self.world)
            .settings
            .webhook_target(self.webhook_url.as_deref())
    }

    /// The settings in force, as the control calls show them.
    pub(super) fn settings_shown(&self) -> serde_json::Value {
        held(&self.world).settings.shown(self.webhook_url.as_deref())
    }

    /// Takes up the deliveries that a stop has interrupted.
    pub(super) fn resume(self: &Arc<Self>) {
        let (mut unsent, mut retries) = (Vec::new(), Vec::new());
        let now = self.clock.now();
        for event in held(&self.world).events.iter().filter(|event| !event.delivered) {
            match event.retry_at {
                Some(at) => retries.push((event.webhook_id.clone(), at)),
                // What nobody listened to when it happened is not sent late, but what was cut off is.
                None if event.attempts == 0 && now.duration_since(event.at).as_hours() < 1 => {
                    unsent.push(event.webhook_id.clone());
                }
                None => {}
            }
        }
        if !unsent.is_empty() {
            self.spawn(webhooks::deliver(Arc::clone(self), unsent));
        }
        for (webhook_id, at) in retries {
            self.spawn(webhooks::retry(Arc::clone(self), webhook_id, at));
        }
    }

    fn finish(self: &Arc<Self>, world: &mut World) {
        let told = std::mem::take(&mut world.outbox);
        self.save(world);
        self.due_changed.notify_one();
        if !told.is_empty() {
            self.spawn(webhooks::deliver(Arc::clone(self), told));
        }
    }

    fn save(&self, world: &World) {
        let Some(path) = &self.state_file else { return };
        if let Err(error) = write(path, world) {
            tracing::error!(path = %path.display(), %error, "The sandbox's state could not be saved");
        }
    }
}

fn read(path: &Path) -> Result<World, StartError> {
    let fault = |reason: String| StartError::State {
        path: path.to_owned(),
        reason,
    };
    match std::fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| fault(error.to_string())),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            if let Some(folder) = path.parent() {
                std::fs::create_dir_all(folder).map_err(|error| fault(error.to_string()))?;
            }
            Ok(World::default())
        }
        Err(error) => Err(fault(error.to_string())),
    }
}

/// Writes beside the file and puts the new one in its place, so that a crash leaves one of the two whole.
fn write(path: &Path, world: &World) -> std::io::Result<()> {
    let beside = path.with_extension("new");
    std::fs::write(&beside, serde_json::to_vec(world)?)?;
    std::fs::rename(&beside, path)
}
