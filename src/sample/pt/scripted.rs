//! Recordings that follow a script, for tests and the synthetic host.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use super::{Capture, Drained, RecordError, RecordPt, Request, Step};

/// What a recording of a thread comes to.
pub type Script = Box<dyn FnMut(i32, &Request) -> Result<Capture, RecordError> + Send>;

/// Records by a script, and keeps account of who was recorded.
pub struct ScriptedPt {
    script: Script,
    recorded: Recorded,
}

/// Thread ids in the order in which they were recorded.
pub type Recorded = Arc<Mutex<Vec<i32>>>;

impl ScriptedPt {
    /// Asks `script` each time.
    pub fn new(
        script: impl FnMut(i32, &Request) -> Result<Capture, RecordError> + Send + 'static,
    ) -> Self {
        Self {
            script: Box::new(script),
            recorded: Recorded::default(),
        }
    }

    /// Every recording holds these bytes, and took the whole window.
    pub fn of_bytes(bytes: Vec<u8>) -> Self {
        Self::new(move |_, request| Ok(whole(bytes.clone(), request)))
    }

    /// Every recording is refused with this errno.
    pub fn refusing(step: Step, errno: i32) -> Self {
        Self::new(move |_, _| Err(refusal(step, errno)))
    }

    /// Who is recorded from now on.
    pub fn recorded(&self) -> Recorded {
        self.recorded.clone()
    }
}

/// A recording of a thread that ran throughout.
pub fn whole(bytes: Vec<u8>, request: &Request) -> Capture {
    Capture {
        trace: Drained {
            bytes,
            ..Drained::default()
        },
        elapsed: request.window,
        on_cpu: request.window,
        traced: request.window,
    }
}

/// The kernel's refusal.
pub fn refusal(step: Step, errno: i32) -> RecordError {
    RecordError {
        step,
        error: io::Error::from_raw_os_error(errno),
    }
}

impl RecordPt for ScriptedPt {
    fn record(&mut self, tid: i32, request: &Request) -> Result<Capture, RecordError> {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        recorded.push(tid);
        drop(recorded);
        (self.script)(tid, request)
    }
}
