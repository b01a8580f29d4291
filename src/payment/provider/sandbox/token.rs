//! The tokens that tell the sandbox what to do.

/// What a token tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Story {
    /// It works.
    Ok,
    /// The bank says no.
    Declined,
    /// The bank says no for want of money.
    InsufficientFunds,
    /// The payer must confirm.
    RequiresAction,
    /// It is decided some seconds later.
    Pending,
    /// It works, and nobody hears of it; so does everything done to it later.
    LostReply,
    /// It never arrives.
    Unreachable,
}

/// What a token must be.
pub(super) const RULE: &str = "must be a token of the sandbox: sandbox_ok, sandbox_declined, \
     sandbox_insufficient_funds, sandbox_requires_action, sandbox_pending, sandbox_lost_reply or \
     sandbox_unreachable, each with any `:suffix`";

impl Story {
    /// The story of a token, whatever its suffix.
    pub(super) fn of(token: &str) -> Option<Self> {
        let word = token.split_once(':').map_or(token, |(word, _)| word);
        Some(match word {
            "sandbox_ok" => Story::Ok,
            "sandbox_declined" => Story::Declined,
            "sandbox_insufficient_funds" => Story::InsufficientFunds,
            "sandbox_requires_action" => Story::RequiresAction,
            "sandbox_pending" => Story::Pending,
            "sandbox_lost_reply" => Story::LostReply,
            "sandbox_unreachable" => Story::Unreachable,
            _ => return None,
        })
    }
}
