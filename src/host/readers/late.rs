//! Answers of pending reads, for a caller that waits only briefly: a later answer is kept for the
//! caller's next attempt.

use std::time::{Duration, Instant};

use super::Ticket;

/// Pending reads and late answers, by question.
#[derive(Debug)]
pub(crate) struct LateAnswers<Q, T> {
    /// Longest wait for an answer, over all attempts.
    patience: Duration,
    /// Time after which an answer is dropped.
    kept: Duration,
    reads: Vec<(Q, Answer<T>)>,
}

#[derive(Debug)]
enum Answer<T> {
    Pending(Ticket<T>),
    Arrived(Instant, T),
}

/// A read without an answer so far.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Blocked {
    /// Whether the read had its full time or could not start; `false` if the caller had no time
    /// left.
    pub(crate) for_long: bool,
}

impl<Q: PartialEq, T> LateAnswers<Q, T> {
    /// No reads so far.
    pub(crate) fn new(patience: Duration, kept: Duration) -> Self {
        Self {
            patience,
            kept,
            reads: Vec::new(),
        }
    }

    /// Takes the answers that arrived, and drops those that no attempt took in time.
    pub(crate) fn sweep(&mut self) {
        let now = Instant::now();
        for (_, answer) in &mut self.reads {
            if let Answer::Pending(ticket) = answer {
                if let Some(arrived) = ticket.wait(Duration::ZERO) {
                    *answer = Answer::Arrived(now, arrived);
                }
            }
        }
        let kept = self.kept;
        self.reads
            .retain(|(_, answer)| !matches!(answer, Answer::Arrived(at, _) if now - *at > kept));
    }

    /// Waits for the answer to a question, for at most `left`. `begin` starts the read if none is
    /// pending.
    ///
    /// # Errors
    /// [`Blocked`] if there is no answer.
    pub(crate) fn ask(
        &mut self,
        question: Q,
        left: Duration,
        begin: impl FnOnce() -> Option<Ticket<T>>,
    ) -> Result<T, Blocked> {
        let known = self.reads.iter().position(|(known, _)| *known == question);
        let ticket = match known.map(|n| self.reads.swap_remove(n).1) {
            Some(Answer::Arrived(_, answer)) => return Ok(answer),
            Some(Answer::Pending(ticket)) => ticket,
            None => begin().ok_or(Blocked { for_long: true })?,
        };
        let wait = self.patience.saturating_sub(ticket.age()).min(left);
        ticket.wait(wait).ok_or_else(|| {
            let for_long = ticket.age() >= self.patience;
            self.reads.push((question, Answer::Pending(ticket)));
            Blocked { for_long }
        })
    }

    /// Questions of pending reads; of those, `true` for a read that had its full time.
    pub(crate) fn pending(&self) -> impl Iterator<Item = (&Q, bool)> {
        self.reads.iter().filter_map(|(question, answer)| {
            let Answer::Pending(ticket) = answer else {
                return None;
            };
            Some((question, ticket.age() >= self.patience))
        })
    }

    /// Drops the reads that `is_stale`, with their answers.
    pub(crate) fn forget(&mut self, is_stale: impl Fn(&Q) -> bool) {
        self.reads.retain(|(question, _)| !is_stale(question));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::readers::{Payer, Readers};

    #[test]
    fn late_answer_is_kept_for_the_next_attempt_and_then_dropped() {
        let readers = Readers::default();
        let begin = |n: u32| readers.begin(Payer::default(), move || n).ok();
        let mut late = LateAnswers::new(Duration::ZERO, Duration::ZERO);
        let ask = |late: &mut LateAnswers<_, _>, n| late.ask("a", Duration::ZERO, || begin(n));
        while ask(&mut late, 1).is_err() {
            late.sweep();
        }
        while ask(&mut late, 2).is_ok() {}
        while late.pending().next().is_some() {
            late.sweep();
        }
        late.sweep();
        assert!(late.reads.is_empty());
    }
}
