//! What runs behind EC2 in the lab: a machine for each running instance, with its own network address, host name,
//! files, processes and instance metadata.

mod instance;
mod machine;
mod metadata;

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use base64::Engine;
use futures::future::BoxFuture;
use tokio::sync::mpsc;

use crate::network::{Network, NetworkError};
pub use instance::{Instance, InstanceRole};
use machine::Machine;
pub use metadata::{METADATA_TOKEN_SECONDS_MAX, SpotAction};

/// EC2 keeps the last 64 KB of an instance's console (`GetConsoleOutput`, EC2 User Guide).
pub const CONSOLE_BYTES_MAX: usize = 64 * 1024;

/// Why an instance has no machine.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// The instance was booted before.
    #[error("instance {0} has a machine already: kill it first")]
    Running(String),
    /// No such machine.
    #[error("instance {0} has no running machine")]
    NotRunning(String),
    /// The user data is not base64, which EC2 refuses at launch.
    #[error("user data of {instance_id} is not base64: {source}")]
    UserData {
        /// Whose.
        instance_id: String,
        /// Where it goes wrong.
        source: base64::DecodeError,
    },
    /// No namespace for it.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The operating system said no.
    #[error("boot {instance_id}: {step}: {source}")]
    Boot {
        /// Whose machine.
        instance_id: String,
        /// What was being done.
        step: &'static str,
        /// What the system said.
        source: io::Error,
    },
}

/// One file that the image has and this machine's root file system has not.
#[derive(Debug, Clone)]
pub struct ImageFile {
    /// Absolute path in the instance.
    pub path: PathBuf,
    /// Where its content comes from.
    pub content: ImageContent,
    /// Permission bits, such as 0o755.
    pub mode: u32,
}

/// The content of an [`ImageFile`].
#[derive(Debug, Clone)]
pub enum ImageContent {
    /// Written into each instance.
    Bytes(Vec<u8>),
    /// A large file (a program), copied once and shown read-only in each instance.
    File(PathBuf),
}

/// The machine image: a root file system, plus files, plus the environment of process 1.
#[derive(Debug, Clone, Default)]
pub struct Image {
    /// The root file system; none for this machine's own.
    pub root: Option<PathBuf>,
    /// Files on top of the root file system. munged starts with the machine if one of them is `/etc/munge/munge.key`.
    pub files: Vec<ImageFile>,
    /// Directories of this machine that each instance sees, read and write, at the same path: the site's shared
    /// file system.
    pub shared_directories: Vec<PathBuf>,
    /// Environment of everything in the instance, beside PATH and HOME.
    pub environment: BTreeMap<String, String>,
}

impl Image {
    /// Puts a small file in, in place of one at the same path.
    #[must_use]
    pub fn with_bytes(self, path: &str, content: impl Into<Vec<u8>>, mode: u32) -> Self {
        self.with(path, ImageContent::Bytes(content.into()), mode)
    }

    /// Puts a large file in, in place of one at the same path.
    #[must_use]
    pub fn with_file(self, path: &str, source: impl Into<PathBuf>, mode: u32) -> Self {
        self.with(path, ImageContent::File(source.into()), mode)
    }

    /// Bases it on another root file system than this machine's.
    #[must_use]
    pub fn with_root(mut self, root: &Path) -> Self {
        self.root = Some(root.to_owned());
        self
    }

    /// Takes a file of the image's own out.
    #[must_use]
    pub fn without(mut self, path: &str) -> Self {
        self.files.retain(|file| file.path != Path::new(path));
        self
    }

    fn with(self, path: &str, content: ImageContent, mode: u32) -> Self {
        let mut image = self.without(path);
        image.files.push(ImageFile {
            path: path.into(),
            content,
            mode,
        });
        image
    }
}

/// Temporary credentials of a role session.
#[derive(Debug, Clone)]
pub struct SessionCredentials {
    /// `ASIA…`.
    pub access_key_id: String,
    /// The secret.
    pub secret_access_key: String,
    /// The session token.
    pub session_token: String,
    /// ISO 8601 in UTC, as STS answers it.
    pub expiration: String,
    /// How long they last from now.
    pub lifetime: std::time::Duration,
}

/// Where instances get the credentials of their role: `sts:AssumeRole`.
pub trait AssumeRole: Send + Sync {
    /// A session of `role_arn` named `session_name`; the error is for the log.
    fn assume_role<'a>(
        &'a self,
        role_arn: &'a str,
        session_name: &'a str,
    ) -> BoxFuture<'a, Result<SessionCredentials, String>>;
}

/// An instance that shut itself down: with shutdown behaviour `terminate`, EC2 now terminates it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoweredOff {
    /// Which.
    pub instance_id: String,
}

/// The machines of one lab. Cheap to clone; when the last clone is dropped, every machine is killed.
#[derive(Clone)]
pub struct Hypervisor {
    shared: Arc<Shared>,
}

struct Shared {
    network: Network,
    directory: PathBuf,
    image: Mutex<Image>,
    /// Images of instances that boot from others, by their ids.
    further_images: Mutex<HashMap<String, Image>>,
    assume_role: Arc<dyn AssumeRole>,
    powered_off: mpsc::UnboundedSender<PoweredOff>,
    machines: Mutex<HashMap<String, Slot>>,
}

/// A machine, or the promise of one while it boots.
enum Slot {
    Booting,
    Running(Machine),
}

impl Hypervisor {
    /// Copies the image's large files into `directory` and is then ready to boot. The receiver tells of instances that power themselves off.
    pub fn new(
        network: &Network,
        directory: &Path,
        mut image: Image,
        assume_role: Arc<dyn AssumeRole>,
    ) -> io::Result<(Self, mpsc::UnboundedReceiver<PoweredOff>)> {
        fs::create_dir_all(directory)?;
        let directory = directory.canonicalize()?;
        machine::stage_image(&mut image, &directory)?;
        let (powered_off, receiver) = mpsc::unbounded_channel();
        let shared = Shared {
            network: network.clone(),
            directory,
            image: Mutex::new(image),
            further_images: Mutex::new(HashMap::new()),
            assume_role,
            powered_off,
            machines: Mutex::new(HashMap::new()),
        };
        Ok((
            Self {
                shared: Arc::new(shared),
            },
            receiver,
        ))
    }

    /// What instances boot from whose image id is none of [`Hypervisor::add_image`].
    #[must_use]
    pub fn image(&self) -> Image {
        self.shared.image()
    }

    /// From now on instances with this image id boot from `image`.
    pub fn add_image(&self, image_id: &str, mut image: Image) -> io::Result<()> {
        machine::stage_image(&mut image, &self.shared.directory)?;
        let images = self.shared.further_images.lock();
        let mut images = images.unwrap_or_else(PoisonError::into_inner);
        images.insert(image_id.to_owned(), image);
        Ok(())
    }

    /// From now on all other instances boot from `image`; those that run keep what they have.
    pub fn set_image(&self, mut image: Image) -> io::Result<()> {
        machine::stage_image(&mut image, &self.shared.directory)?;
        *self
            .shared
            .image
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = image;
        Ok(())
    }

    /// Boots the machine of `instance`: when this returns, its process 1 runs and its metadata is served. Call it
    /// within a tokio runtime.
    pub async fn boot(&self, instance: Instance) -> Result<(), HypervisorError> {
        let instance_id = instance.instance_id.clone();
        let user_data = match &instance.user_data {
            None => None,
            Some(text) => Some(
                base64::engine::general_purpose::STANDARD
                    .decode(text.trim())
                    .map_err(|source| HypervisorError::UserData {
                        instance_id: instance_id.clone(),
                        source,
                    })?,
            ),
        };
        match self.shared.machines().entry(instance_id.clone()) {
            Entry::Occupied(_) => return Err(HypervisorError::Running(instance_id)),
            Entry::Vacant(free) => free.insert(Slot::Booting),
        };
        let shared = Arc::clone(&self.shared);
        let booted = tokio::task::spawn_blocking(move || shared.boot(instance, user_data)).await;
        let machine = booted.unwrap_or_else(|panic| {
            Err(HypervisorError::Boot {
                instance_id: instance_id.clone(),
                step: "run the boot task",
                source: io::Error::other(panic),
            })
        });
        let mut machines = self.shared.machines();
        // Killed while it booted: the promise is gone, and dropping the machine kills it.
        let wanted = machines.remove(&instance_id).is_some();
        if wanted {
            machines.insert(instance_id, Slot::Running(machine?));
        }
        Ok(())
    }

    /// Kills the machine at once, as `TerminateInstances` does in the end; false when there was none.
    pub async fn kill(&self, instance_id: &str) -> bool {
        let slot = self.shared.machines().remove(instance_id);
        let was_there = slot.is_some();
        // Dropping waits for the processes' end. A panic there was reported by the panic hook.
        let _ = tokio::task::spawn_blocking(move || drop(slot)).await;
        was_there
    }

    /// Ids of the instances that have a machine, in order.
    #[must_use]
    pub fn running(&self) -> Vec<String> {
        let mut running: Vec<String> = self.shared.machines().keys().cloned().collect();
        running.sort();
        running
    }

    /// The end of the console's output, also after the machine's death; None if it never booted.
    #[must_use]
    pub fn console_output(&self, instance_id: &str) -> Option<Vec<u8>> {
        let machine = self.shared.directory.join(instance_id);
        let mut output = fs::read(machine.join("console.log")).ok()?;
        let surplus = output.len().saturating_sub(CONSOLE_BYTES_MAX);
        output.drain(..surplus);
        Some(output)
    }

    /// Shows (or with None withdraws) `spot/instance-action` to the instance.
    pub fn set_spot_action(
        &self,
        instance_id: &str,
        action: Option<&SpotAction>,
    ) -> Result<(), HypervisorError> {
        self.with_machine(instance_id, |machine| {
            machine.metadata().set_spot_action(action);
        })
    }

    /// Shows `events/recommendations/rebalance` with the time of the notice (ISO 8601) to the instance.
    pub fn set_rebalance_notice(
        &self,
        instance_id: &str,
        notice_time: &str,
    ) -> Result<(), HypervisorError> {
        self.with_machine(instance_id, |machine| {
            machine.metadata().set_rebalance_notice(notice_time);
        })
    }

    /// A command that will run as root inside the machine, in all its namespaces and its root.
    pub fn command(
        &self,
        instance_id: &str,
        program: &str,
    ) -> Result<tokio::process::Command, HypervisorError> {
        self.with_machine(instance_id, |machine| {
            machine.command(program, &self.shared.image())
        })
    }

    fn with_machine<T>(
        &self,
        instance_id: &str,
        act: impl FnOnce(&Machine) -> T,
    ) -> Result<T, HypervisorError> {
        match self.shared.machines().get(instance_id) {
            Some(Slot::Running(machine)) => Ok(act(machine)),
            _ => Err(HypervisorError::NotRunning(instance_id.to_owned())),
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.network.delete_links();
        // All die at once; each is then waited for as it is dropped.
        for slot in self.machines().values() {
            if let Slot::Running(machine) = slot {
                machine.begin_kill();
            }
        }
    }
}

impl Shared {
    fn machines(&self) -> MutexGuard<'_, HashMap<String, Slot>> {
        self.machines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn image(&self) -> Image {
        let image = self.image.lock();
        image.unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn image_of(&self, image_id: &str) -> Image {
        let images = self.further_images.lock();
        let images = images.unwrap_or_else(PoisonError::into_inner);
        let further = images.get(image_id).cloned();
        further.unwrap_or_else(|| self.image())
    }

    fn boot(
        self: &Arc<Self>,
        instance: Instance,
        user_data: Option<Vec<u8>>,
    ) -> Result<Machine, HypervisorError> {
        let powered_off = self.powered_off.clone();
        let instance_id = instance.instance_id.clone();
        let on_power_off = move || {
            // Nobody listens any more when the lab is stopping.
            let _ = powered_off.send(PoweredOff { instance_id });
        };
        let environment = machine::Environment {
            network: &self.network,
            directory: &self.directory,
            image: self.image_of(&instance.image_id),
            assume_role: Arc::clone(&self.assume_role),
        };
        Machine::boot(&environment, instance, user_data, on_power_off)
    }
}
