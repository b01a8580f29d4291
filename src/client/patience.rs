//! How long a caller keeps trying to come back to a node.

use std::time::Duration;

use tokio::time::Instant;

use crate::backoff::full_jitter;

/// Waits longer each time, until no try has succeeded for the whole span.
#[derive(Debug)]
pub struct Patience {
    span: Duration,
    failing_since: Option<Instant>,
    tries: u32,
}

impl Patience {
    /// Gives up after this span without success.
    pub fn new(span: Duration) -> Self {
        Self { span, failing_since: None, tries: 0 }
    }

    /// Something worked: begin anew.
    pub fn reset(&mut self) {
        self.failing_since = None;
        self.tries = 0;
    }

    /// Waits before the next try; false when it is time to give up.
    pub async fn wait(&mut self) -> bool {
        let since = *self.failing_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= self.span {
            return false;
        }
        let delay = full_jitter(
            Duration::from_millis(100),
            Duration::from_secs(3),
            self.tries,
            crate::chance::unit(),
        );
        self.tries = self.tries.saturating_add(1);
        tokio::time::sleep(delay.max(Duration::from_millis(20))).await;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn it_gives_up_after_its_span_and_success_renews_it() {
        let mut patience = Patience::new(Duration::from_secs(5));
        let begin = Instant::now();
        while patience.wait().await {}
        assert!(begin.elapsed() >= Duration::from_secs(5));
        assert!(begin.elapsed() < Duration::from_secs(9));
        patience.reset();
        assert!(patience.wait().await);
    }
}
