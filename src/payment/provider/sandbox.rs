//! The embedded provider: no real money, and every story a provider can tell.
//!
//! It keeps its own books, in a file or in tables of its own and on a connection
//! of its own, as a remote provider would: the node's store and these books are
//! never written in one transaction, so that everything that can go wrong
//! between two systems can go wrong here. Nodes that share a store share the
//! books too. The token of the payment method says what happens. Everything is
//! idempotent by provider key, and what settles by time settles by the clock,
//! across restarts.

mod books;
mod desk;
mod token;

use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use secrecy::ExposeSecret;

use self::books::{Charge, ChargeStatus, Rows};
use self::desk::{Desk, Shelf};
use self::token::Story;
use super::{PaymentProvider, ProviderAnswer, ProviderQuery, ProviderRequest};
use crate::clock::{self, Clock};
use crate::store::StoreError;
use crate::store::payment::{CaptureMode, NextAction, OperationKind};
use crate::store::postgres::PgStore;

pub use books::{Books, ChargeEntry};

/// The provider's name.
pub const NAME: &str = "sandbox";

/// How long a pending charge takes.
const SETTLES_AFTER: Duration = Duration::from_secs(2);

/// How long the payer may take to confirm.
const ACTION_EXPIRES_AFTER: Duration = Duration::from_secs(3600);

/// The provider. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Sandbox {
    desk: Desk,
    clock: Arc<dyn Clock>,
}

impl Sandbox {
    /// Opens or makes the books.
    pub async fn open(path: &Path) -> Result<Self, StoreError> {
        Self::open_with(path, Arc::new(clock::System)).await
    }

    /// Opens the books with a clock of the caller's.
    pub async fn open_with(path: &Path, clock: Arc<dyn Clock>) -> Result<Self, StoreError> {
        // Nobody else may read it; SQLite gives the files beside it its mode.
        let made = std::fs::OpenOptions::new().create(true).append(true).mode(0o600).open(path);
        made.map_err(|error| StoreError::Unavailable(format!("cannot make the books: {error}")))?;
        Ok(Self { desk: Desk::open(Shelf::file(path).await?), clock })
    }

    /// Opens or makes the books in the database that the nodes of a cluster
    /// share: what one node charged another finds.
    pub async fn open_shared(store: &PgStore) -> Result<Self, StoreError> {
        let desk = Desk::open(Shelf::shared(store).await?);
        Ok(Self { desk, clock: Arc::new(clock::System) })
    }

    /// Books nothing more and closes the books. To be called when the node ends.
    pub async fn close(&self) {
        self.desk.close().await;
    }

    /// Everything that it has booked, for tests and the doctor.
    pub async fn books(&self) -> Result<Books, StoreError> {
        let now = self.now();
        self.desk.book(move |rows| Box::pin(async move { rows.read(now).await })).await
    }

    /// What the payer does on the provider's page. Returns whether the charge
    /// was waiting for it; a second time it was not.
    pub async fn complete_action(
        &self,
        charge_key: &str,
        approve: bool,
    ) -> Result<bool, StoreError> {
        let (key, now) = (charge_key.to_owned(), self.now());
        self.desk
            .book(move |rows| Box::pin(async move { complete(rows, &key, approve, now).await }))
            .await
    }

    fn now(&self) -> i64 {
        clock::micros(self.clock.now())
    }

    async fn charge(
        &self,
        request: &ProviderRequest,
        story: Story,
    ) -> Result<ProviderAnswer, StoreError> {
        let (request, now) = (request.clone(), self.now());
        self.desk
            .book(move |rows| Box::pin(async move { charge(rows, &request, story, now).await }))
            .await
    }

    async fn act(&self, request: &ProviderRequest) -> Result<ProviderAnswer, StoreError> {
        let (request, now) = (request.clone(), self.now());
        self.desk.book(move |rows| Box::pin(async move { act(rows, &request, now).await })).await
    }

    async fn ask(&self, query: &ProviderQuery) -> Result<ProviderAnswer, StoreError> {
        let (query, now) = (query.clone(), self.now());
        self.desk.book(move |rows| Box::pin(async move { ask(rows, &query, now).await })).await
    }
}

async fn complete(
    rows: &mut dyn Rows,
    key: &str,
    approve: bool,
    now: i64,
) -> Result<bool, StoreError> {
    let charge = rows.charge(key, now).await?;
    let Some(mut charge) = charge.filter(|c| c.status == ChargeStatus::RequiresAction) else {
        return Ok(false);
    };
    if approve {
        charge.take();
    } else {
        charge.decline("action_declined");
    }
    rows.update_charge(&charge).await?;
    Ok(true)
}

async fn charge(
    rows: &mut dyn Rows,
    request: &ProviderRequest,
    story: Story,
    now: i64,
) -> Result<ProviderAnswer, StoreError> {
    if rows.receive_again(&request.provider_key).await? {
        let known = rows.charge(&request.provider_key, now).await?;
        return Ok(known.map_or(ProviderAnswer::Unknown, |charge| answer(&charge)));
    }
    let mut charge = Charge {
        key: request.provider_key.clone(),
        currency: request.amount.currency.to_string(),
        minor_units: request.amount.minor_units,
        manual: request.capture == CaptureMode::Manual,
        status: ChargeStatus::Pending,
        code: String::new(),
        captured: 0,
        refunded: 0,
        settles_at: 0,
        lossy: story == Story::LostReply,
    };
    match story {
        Story::Ok | Story::LostReply | Story::Unreachable => charge.take(),
        Story::Declined => charge.decline("declined"),
        Story::InsufficientFunds => charge.decline("insufficient_funds"),
        Story::RequiresAction => {
            charge.status = ChargeStatus::RequiresAction;
            charge.settles_at = after(now, ACTION_EXPIRES_AFTER);
        }
        Story::Pending => charge.settles_at = after(now, SETTLES_AFTER),
    }
    rows.insert_charge(&charge, now).await?;
    Ok(if charge.lossy { ProviderAnswer::Unknown } else { answer(&charge) })
}

async fn act(
    rows: &mut dyn Rows,
    request: &ProviderRequest,
    now: i64,
) -> Result<ProviderAnswer, StoreError> {
    if rows.act_again(&request.provider_key).await? {
        let code = rows.action(&request.provider_key).await?;
        return Ok(code.map_or(ProviderAnswer::Unknown, |code| acted(&code)));
    }
    let Some(mut charge) = rows.charge(&request.charge_key, now).await? else {
        return Ok(declined("no_such_charge"));
    };
    let code = charge.act(request.kind, request.amount.minor_units).err().unwrap_or_default();
    rows.update_charge(&charge).await?;
    rows.insert_action(request, code, now).await?;
    Ok(if charge.lossy { ProviderAnswer::Unknown } else { acted(code) })
}

async fn ask(
    rows: &mut dyn Rows,
    query: &ProviderQuery,
    now: i64,
) -> Result<ProviderAnswer, StoreError> {
    if query.kind == OperationKind::Charge {
        let charge = rows.charge(&query.provider_key, now).await?;
        return Ok(charge.map_or(ProviderAnswer::NotFound, |charge| answer(&charge)));
    }
    let code = rows.action(&query.provider_key).await?;
    Ok(code.map_or(ProviderAnswer::NotFound, |code| acted(&code)))
}

#[async_trait]
impl PaymentProvider for Sandbox {
    fn name(&self) -> &'static str {
        NAME
    }

    fn check_method(&self, method: &str) -> Result<(), &'static str> {
        Story::of(method).map(|_| ()).ok_or(token::RULE)
    }

    async fn submit(&self, request: &ProviderRequest) -> ProviderAnswer {
        let answered = if request.kind == OperationKind::Charge {
            let story = request.method.as_ref().and_then(|token| Story::of(token.expose_secret()));
            match story {
                None => return declined("invalid_payment_method"),
                Some(Story::Unreachable) => return ProviderAnswer::NotSent,
                Some(story) => self.charge(request, story).await,
            }
        } else {
            self.act(request).await
        };
        heard(answered)
    }

    async fn query(&self, query: &ProviderQuery) -> ProviderAnswer {
        heard(self.ask(query).await)
    }
}

/// Books that cannot be used answer nothing that proves anything.
fn heard(answered: Result<ProviderAnswer, StoreError>) -> ProviderAnswer {
    answered.unwrap_or_else(|error| {
        tracing::warn!(%error, "the sandbox's books cannot be used");
        ProviderAnswer::Unknown
    })
}

fn after(now: i64, time: Duration) -> i64 {
    now.saturating_add(i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
}

fn answer(charge: &Charge) -> ProviderAnswer {
    match charge.status {
        ChargeStatus::Succeeded => ProviderAnswer::Succeeded,
        ChargeStatus::Authorized => ProviderAnswer::Authorized,
        ChargeStatus::RequiresAction => ProviderAnswer::RequiresAction(NextAction {
            kind: "confirm".to_owned(),
            url: String::new(),
        }),
        ChargeStatus::Pending => ProviderAnswer::Pending,
        ChargeStatus::Declined => declined(&charge.code),
        ChargeStatus::Canceled => ProviderAnswer::Canceled,
        ChargeStatus::Expired => ProviderAnswer::Expired,
    }
}

fn acted(code: &str) -> ProviderAnswer {
    if code.is_empty() { ProviderAnswer::Succeeded } else { declined(code) }
}

fn declined(code: &str) -> ProviderAnswer {
    let message = match code {
        "insufficient_funds" => "the means of payment lacks the money",
        "action_declined" => "the payer refused to confirm",
        "invalid_payment_method" => "the means of payment is not known",
        "no_such_charge" => "there is no such charge",
        "not_authorized" => "the charge is not authorized for this amount",
        "not_cancelable" => "the charge can no longer be canceled",
        "not_refundable" => "less than this amount is left of the charge",
        _ => "the bank declined the payment",
    };
    ProviderAnswer::Declined { code: code.to_owned(), message: message.to_owned() }
}
