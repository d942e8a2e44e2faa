//! Scripted recordings, for tests and the synthetic host.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::{AuxTrace, Capture, RecordError, RecordPt, Request, Step};

/// Returns the recording of a thread.
pub type Script = Box<dyn Fn(i32, &Request) -> Result<Capture, RecordError> + Send + Sync>;

/// Records by a script, and logs the recorded threads.
pub struct ScriptedPt {
    script: Script,
    recorded: Recorded,
}

/// Thread IDs in the order of their recordings.
pub type Recorded = Arc<Mutex<Vec<i32>>>;

impl ScriptedPt {
    /// Calls `script` for each recording.
    pub fn new(
        script: impl Fn(i32, &Request) -> Result<Capture, RecordError> + Send + Sync + 'static,
    ) -> Self {
        Self {
            script: Box::new(script),
            recorded: Recorded::default(),
        }
    }

    /// Every recording contains these bytes and takes the whole window.
    pub fn of_bytes(bytes: Vec<u8>) -> Self {
        Self::new(move |_, request| Ok(whole(bytes.clone(), request)))
    }

    /// Every recording is refused with this errno.
    pub fn refusing(step: Step, errno: i32) -> Self {
        Self::new(move |_, _| Err(refusal(step, errno)))
    }

    /// The log of recorded threads; it is updated with each recording.
    pub fn recorded(&self) -> Recorded {
        self.recorded.clone()
    }
}

/// A recording of a thread that ran throughout.
pub fn whole(bytes: Vec<u8>, request: &Request) -> Capture {
    Capture {
        trace: AuxTrace {
            bytes,
            ..AuxTrace::default()
        },
        elapsed: request.window,
        on_cpu: request.window,
        traced: request.window,
    }
}

/// A refusal by the kernel.
pub fn refusal(step: Step, errno: i32) -> RecordError {
    RecordError {
        step,
        error: io::Error::from_raw_os_error(errno),
    }
}

impl RecordPt for ScriptedPt {
    fn record(&self, tid: i32, request: &Request) -> Result<Capture, RecordError> {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.push(tid);
        drop(recorded);
        (self.script)(tid, request)
    }
}
