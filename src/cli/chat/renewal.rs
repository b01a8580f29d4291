//! A fresh token before the old one is over, so that a chat that lives longer
//! than its token needs no new connection.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret, SecretString};
use tokio::time::Instant;

use crate::cli::credentials::Credential;

/// How soon it looks again for a token that has not been renewed.
const AGAIN: Duration = Duration::from_millis(500);

/// When to renew, and from what.
#[derive(Debug)]
pub(super) struct Renewal {
    credential: Credential,
    /// When the token in use ends; `None` when it is not known or cannot be
    /// renewed.
    ends: Option<SystemTime>,
    next: Instant,
}

impl Renewal {
    /// For a connection that was made with this token of the credential.
    pub(super) fn new(credential: Credential, token: Option<&SecretString>) -> Self {
        let ends = token.filter(|_| credential.is_renewable()).and_then(expiry);
        let mut renewal = Self { credential, ends, next: Instant::now() };
        renewal.plan(Duration::ZERO);
        renewal
    }

    /// Waits until it is time, and returns a token that holds longer; for ever
    /// when none will come. What was missed by dropping it comes again.
    pub(super) async fn fresh(&mut self) -> SecretString {
        loop {
            let Some(ends) = self.ends else { return std::future::pending().await };
            tokio::time::sleep_until(self.next).await;
            let token = self.credential.token().ok().flatten();
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
    use super::*;

    fn token(seconds: u64) -> SecretString {
        let ends = SystemTime::now() + Duration::from_secs(seconds);
        let ends = ends.duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
        let claims = BASE64_URL_SAFE_NO_PAD.encode(format!("{{\"exp\":{ends}}}"));
        format!("e30.{claims}.x").into()
    }

    #[tokio::test(start_paused = true)]
    async fn a_file_is_read_again_before_its_token_ends_and_until_it_has_a_later_one() {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let first = token(100);
        std::fs::write(file.path(), first.expose_secret()).expect("written");
        let mut renewal = Renewal::new(Credential::File(file.path().to_owned()), Some(&first));
        let began = Instant::now();
        let early = tokio::time::timeout(Duration::from_secs(85), renewal.fresh()).await;
        assert!(early.is_err(), "the same token is no fresh one");
        std::fs::write(file.path(), token(900).expose_secret()).expect("written");
        let fresh = renewal.fresh().await;
        assert!(began.elapsed() < Duration::from_secs(90));
        assert!(expiry(&fresh) > expiry(&token(500)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_token_that_was_given_is_never_renewed() {
        let given = token(1);
        let mut renewal = Renewal::new(Credential::Token(given.clone()), Some(&given));
        let never = tokio::time::timeout(Duration::from_secs(3600), renewal.fresh()).await;
        assert!(never.is_err());
        assert_eq!(expiry(&"no token".into()), None);
    }
}
