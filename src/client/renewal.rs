//! A fresh token before the old one is over, so that a chat that lives longer
//! than its token needs no new connection.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

/// A way to bearer tokens.
pub trait Tokens: Send + Sync + 'static {
    /// A token, fresh where it can be had afresh; none for callers without one,
    /// or when there is none now.
    fn token(&self) -> Option<SecretString>;

    /// Whether another token may come than the one before.
    fn is_renewable(&self) -> bool;
}

/// How soon it looks again for a token that has not been renewed.
const AGAIN: Duration = Duration::from_millis(500);

/// When to renew, and from what.
pub struct Renewal {
    source: Arc<dyn Tokens>,
    /// When the token in use ends; `None` when it is not known or cannot be
    /// renewed.
    ends: Option<SystemTime>,
    next: Instant,
}

impl std::fmt::Debug for Renewal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewal").field("ends", &self.ends).finish_non_exhaustive()
    }
}

impl Renewal {
    /// For a connection that was made with this token of the source.
    pub fn new(source: Arc<dyn Tokens>, token: Option<&SecretString>) -> Self {
        let ends = token.filter(|_| source.is_renewable()).and_then(expiry);
        let mut renewal = Self { source, ends, next: Instant::now() };
        renewal.plan(Duration::ZERO);
        renewal
    }

    /// Waits until it is time, and returns a token that holds longer; for ever
    /// when none will come. What was missed by dropping it comes again.
    pub async fn fresh(&mut self) -> SecretString {
        loop {
            let Some(ends) = self.ends else { return std::future::pending().await };
            tokio::time::sleep_until(self.next).await;
            let token = self.source.token();
            match token.as_ref().and_then(expiry) {
                Some(later) if later > ends => {
                    self.ends = Some(later);
                    self.plan(AGAIN);
                    if let Some(token) = token {
                        return token;
                    }
                }
                // The node ends the stream when nobody renews it.
                _ => self.next = Instant::now() + AGAIN,
            }
        }
    }

    /// When four fifths of the time that is left have passed.
    fn plan(&mut self, least: Duration) {
        let left = self.ends.and_then(|ends| ends.duration_since(SystemTime::now()).ok());
        self.next = Instant::now() + (left.unwrap_or_default() * 4 / 5).max(least);
    }
}

/// The time that stands in a token. Not verified: the node does that.
fn expiry(token: &SecretString) -> Option<SystemTime> {
    let payload = token.expose_secret().trim().split('.').nth(1)?;
    let claims = BASE64_URL_SAFE_NO_PAD.decode(payload).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    UNIX_EPOCH.checked_add(Duration::from_secs(claims.get("exp")?.as_u64()?))
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn token(seconds: u64) -> SecretString {
        let ends = SystemTime::now() + Duration::from_secs(seconds);
        let ends = ends.duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let claims = BASE64_URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{ends}}}"));
        format!("e30.{claims}.x").into()
    }

    /// Gives what it was last told to.
    struct Given(Mutex<SecretString>, bool);

    impl Tokens for Given {
        fn token(&self) -> Option<SecretString> {
            Some(self.0.lock().expect("unpoisoned").clone())
        }

        fn is_renewable(&self) -> bool {
            self.1
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_source_is_asked_before_the_token_ends_and_until_it_has_a_later_one() {
        let first = token(100);
        let source = Arc::new(Given(Mutex::new(first.clone()), true));
        let mut renewal = Renewal::new(source.clone(), Some(&first));
        let began = Instant::now();
        let early = tokio::time::timeout(Duration::from_secs(85), renewal.fresh()).await;
        assert!(early.is_err(), "the same token is no fresh one");
        *source.0.lock().expect("unpoisoned") = token(900);
        let fresh = renewal.fresh().await;
        assert!(began.elapsed() < Duration::from_secs(90));
        assert!(expiry(&fresh) > expiry(&token(500)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_was_given_is_never_renewed() {
        let given = token(1);
        let source = Arc::new(Given(Mutex::new(given.clone()), false));
        let mut renewal = Renewal::new(source, Some(&given));
        let never = tokio::time::timeout(Duration::from_secs(3600), renewal.fresh()).await;
        assert!(never.is_err());
        assert_eq!(expiry(&"no token".into()), None);
    }
}
