//! Futures polled by hand in virtual time: who runs next is decided by the run's agenda alone.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Something that runs until it ends or is dropped.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Which task.
pub(crate) type TaskId = u64;

/// The tasks that have not ended.
#[derive(Default)]
pub(crate) struct Tasks {
    tasks: BTreeMap<TaskId, (Task, Waker)>,
    woken: Arc<Mutex<Vec<TaskId>>>,
}

struct TaskWaker {
    id: TaskId,
    woken: Arc<Mutex<Vec<TaskId>>>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let mut woken = self.woken.lock().unwrap_or_else(PoisonError::into_inner);
        if !woken.contains(&self.id) {
            woken.push(self.id);
        }
    }
}

impl Tasks {
    /// Adds a task; it is polled for the first time by [`Self::run_woken`].
    pub(crate) fn spawn(&mut self, id: TaskId, task: Task) {
        let waker = Arc::new(TaskWaker {
            id,
            woken: Arc::clone(&self.woken),
        });
        waker.wake_by_ref();
        self.tasks.insert(id, (task, waker.into()));
    }

    /// The task is no more: whatever it was waiting for, it does nothing after this.
    pub(crate) fn kill(&mut self, id: TaskId) {
        self.tasks.remove(&id);
    }

    /// Polls the tasks that were woken, in the order in which they were.
    pub(crate) fn run_woken(&mut self) {
        loop {
            let woken =
                std::mem::take(&mut *self.woken.lock().unwrap_or_else(PoisonError::into_inner));
            if woken.is_empty() {
                return;
            }
            for id in woken {
                let Some((task, waker)) = self.tasks.get_mut(&id) else {
                    continue;
                };
                let mut context = Context::from_waker(waker);
                if let Poll::Ready(()) = task.as_mut().poll(&mut context) {
                    self.tasks.remove(&id);
                }
            }
        }
    }
}
