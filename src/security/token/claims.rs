//! A token's header and claims, as far as they are read.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::invalid;
use crate::principal::Kind;
use crate::refusal::Refusal;

/// The header. Keys that a token brings along (jwk, jku, x5u, x5c) are not
/// read at all.
#[derive(Deserialize)]
pub(super) struct Header {
    pub(super) alg: String,
    pub(super) kid: Option<String>,
    crit: Option<serde_json::Value>,
}

impl Header {
    pub(super) fn read(part: &str) -> Result<Self, Refusal> {
        let header: Self = decode(part).ok_or_else(|| invalid("the token's header is not read"))?;
        if header.crit.is_some() {
            return Err(invalid("the token asks for an extension (crit) that is not known here"));
        }
        Ok(header)
    }
}

/// The claims. `iss`, `sub`, `aud` and `exp` must be there.
#[derive(Deserialize)]
pub(super) struct Claims {
    pub(super) iss: String,
    pub(super) sub: String,
    pub(super) aud: Audience,
    pub(super) exp: serde_json::Number,
    pub(super) nbf: Option<serde_json::Number>,
    pub(super) roles: Option<Vec<String>>,
    pub(super) kind: Option<Kind>,
    cnf: Option<Confirmation>,
}

/// One audience or several.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    pub(super) fn contains(&self, audience: &str) -> bool {
        match self {
            Audience::One(one) => one == audience,
            Audience::Many(many) => many.iter().any(|one| one == audience),
        }
    }
}

/// What the bearer must prove besides (RFC 7800).
#[derive(Deserialize)]
struct Confirmation {
    #[serde(rename = "x5t#S256")]
    thumbprint: Option<String>,
}

impl Claims {
    pub(super) fn read(part: &str) -> Result<Self, Refusal> {
        decode(part).ok_or_else(|| {
            invalid("the token's claims are not read: iss, sub, aud and exp must be there")
        })
    }

    /// The thumbprint of the certificate that must come with the token. A
    /// binding of another sort cannot be checked, so it is refused.
    pub(super) fn bound_to(&self) -> Result<Option<[u8; 32]>, Refusal> {
        let Some(confirmation) = &self.cnf else { return Ok(None) };
        confirmation
            .thumbprint
            .as_ref()
            .and_then(|text| URL_SAFE_NO_PAD.decode(text).ok()?.try_into().ok())
            .map(Some)
            .ok_or_else(|| invalid("the token is bound (cnf) to what is not known here"))
    }
}

fn decode<T: for<'de> Deserialize<'de>>(part: &str) -> Option<T> {
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).ok()?).ok()
}

/// A NumericDate: seconds since 1970, a fraction allowed.
pub(super) fn time(number: &serde_json::Number) -> Option<SystemTime> {
    let since = match number.as_u64() {
        Some(seconds) => Duration::from_secs(seconds),
        None => Duration::try_from_secs_f64(number.as_f64()?).ok()?,
    };
    UNIX_EPOCH.checked_add(since)
}
