//! Requests, checked: every violated field at once, and the hash under which a
//! key stands.

use std::collections::{BTreeMap, HashMap};

use aws_lc_rs::digest;
use secrecy::SecretString;
use uuid::Uuid;

use super::Asked;
use super::wait::Until;
use crate::card;
use crate::id::{self, CLIENT_KEY_RULE, SHORT_NAME_RULE};
use crate::money::{Currency, MAX_MINOR_UNITS, Money, MoneyError};
use crate::payment::Core;
use crate::principal::{Kind, Principal};
use crate::proto::payment::v1 as pb;
use crate::refusal::{Reason, Refusal, Violations};
use crate::security::permit::Permit;
use crate::store::payment::{CaptureMode, Key, Method, NewPayment, OperationKind, Status};

const MAX_DESCRIPTION: usize = 512;
const MAX_PAIRS: usize = 16;
const MAX_PAIR_KEY: usize = 64;
const MAX_PAIR_VALUE: usize = 512;
const MAX_METHOD: usize = 255;
const DEFAULT_PAGE: u32 = 50;
const MAX_PAGE: u32 = 500;

/// A payment that may be claimed.
pub(super) struct Wanted {
    pub(super) key: Key,
    pub(super) hash: [u8; 32],
    pub(super) payment: NewPayment,
}

/// A page of a listing.
pub(super) struct Page {
    pub(super) statuses: Vec<Status>,
    pub(super) before: Option<Uuid>,
    pub(super) size: u32,
}

pub(super) fn pay(
    core: &Core,
    permit: &Permit,
    request: pb::ProcessPaymentRequest,
) -> Result<Wanted, Refusal> {
    let mut violations = Violations::new();
    let payer = core.parts.accounts.of(permit.principal());
    client_key(&mut violations, &request.idempotency_key);
    let payee = payee(core, permit, &mut violations, &request.payee, &payer);
    let amount = amount(&mut violations, request.amount.as_ref());
    method(core, &mut violations, &request.payment_method);
    let capture = match pb::CaptureMode::try_from(request.capture) {
        Ok(pb::CaptureMode::Unspecified | pb::CaptureMode::Automatic) => CaptureMode::Automatic,
        Ok(pb::CaptureMode::Manual) => CaptureMode::Manual,
        Err(_) => {
            violations.add("capture", "must be AUTOMATIC or MANUAL");
            CaptureMode::Automatic
        }
    };
    description(&mut violations, &request.description);
    metadata(&mut violations, &request.metadata);
    let room = &request.room_id;
    violations.check(room.is_empty() || id::is_short_name(room), "room_id", || {
        SHORT_NAME_RULE.to_owned()
    });
    no_card(&mut violations, "room_id", room);
    violations.finish()?;
    let (Some(payee), Some(amount)) = (payee, amount) else {
        return Err(Refusal::new(Reason::Internal, "a checked field is missing"));
    };
    let key = Key { account: payer.clone(), method: Method::Process, key: request.idempotency_key };
    let metadata: BTreeMap<_, _> = request.metadata.into_iter().collect();
    let hash = {
        let mut hash = RequestHash::new(Method::Process);
        hash.text(payee.as_str()).text(amount.currency.as_str()).number(amount.minor_units);
        hash.text(&request.payment_method).number(capture as i64).text(&request.description);
        hash.number(i64::try_from(metadata.len()).unwrap_or(i64::MAX));
        for (name, value) in &metadata {
            hash.text(name).text(value);
        }
        hash.text(&request.room_id);
        hash.finish()
    };
    let payment = NewPayment {
        payer,
        payee,
        amount,
        capture,
        description: request.description,
        metadata,
        room_id: request.room_id,
        provider: core.parts.provider.name().to_owned(),
        method: SecretString::from(request.payment_method),
    };
    Ok(Wanted { key, hash, payment })
}

pub(super) fn capture(
    core: &Core,
    permit: &Permit,
    request: &pb::CapturePaymentRequest,
    until: Until,
) -> Result<Asked, Refusal> {
    let words = (Method::Capture, OperationKind::Capture);
    let fields = (&*request.payment_id, &*request.idempotency_key, request.minor_units);
    asked(core, permit, words, fields, until)
}

pub(super) fn cancel(
    core: &Core,
    permit: &Permit,
    request: &pb::CancelPaymentRequest,
    until: Until,
) -> Result<Asked, Refusal> {
    let words = (Method::Cancel, OperationKind::Cancel);
    asked(core, permit, words, (&request.payment_id, &request.idempotency_key, 0), until)
}

pub(super) fn refund(
    core: &Core,
    permit: &Permit,
    request: &pb::RefundPaymentRequest,
    until: Until,
) -> Result<Asked, Refusal> {
    let words = (Method::Refund, OperationKind::Refund);
    let fields = (&*request.payment_id, &*request.idempotency_key, request.minor_units);
    asked(core, permit, words, fields, until)
}

fn asked(
    core: &Core,
    permit: &Permit,
    (method, kind): (Method, OperationKind),
    (payment_id, key, minor_units): (&str, &str, i64),
    until: Until,
) -> Result<Asked, Refusal> {
    let mut violations = Violations::new();
    let payment_id = violations.take("payment_id", parse_id(payment_id));
    client_key(&mut violations, key);
    violations.check((0..=MAX_MINOR_UNITS).contains(&minor_units), "minor_units", || {
        format!("must be 0 to {MAX_MINOR_UNITS}")
    });
    violations.finish()?;
    let payment_id =
        payment_id.ok_or_else(|| Refusal::new(Reason::Internal, "a checked field is missing"))?;
    let mut hash = RequestHash::new(method);
    hash.text(&payment_id.to_string()).number(minor_units);
    let account = core.parts.accounts.of(permit.principal());
    let key = Key { account, method, key: key.to_owned() };
    Ok(Asked { payment_id, key, kind, minor_units, hash: hash.finish(), until })
}

pub(super) fn page(request: &pb::ListPaymentsRequest) -> Result<Page, Refusal> {
    let mut violations = Violations::new();
    let size = request.page_size;
    violations.check(size <= MAX_PAGE, "page_size", || format!("must be 0 to {MAX_PAGE}"));
    let mut statuses = Vec::new();
    for status in &request.statuses {
        match Status::from_number(i64::from(*status)) {
            Some(status) => statuses.push(status),
            None => {
                violations.add("statuses", "must be statuses of the contract, not UNSPECIFIED");
                break;
            }
        }
    }
    let before = match request.page_token.as_str() {
        "" => None,
        token => {
            let read = Uuid::try_parse(token).map_err(|_| "must be from the response before");
            violations.take("page_token", read)
        }
    };
    violations.finish()?;
    Ok(Page { statuses, before, size: if size == 0 { DEFAULT_PAGE } else { size } })
}

/// An id alone in its request.
pub(super) fn payment_id(text: &str) -> Result<Uuid, Refusal> {
    let mut violations = Violations::new();
    let id = violations.take("payment_id", parse_id(text));
    violations.finish()?;
    id.ok_or_else(|| Refusal::new(Reason::Internal, "a checked field is missing"))
}

pub(super) fn parse_id(text: &str) -> Result<Uuid, &'static str> {
    Uuid::try_parse(text).map_err(|_| "must be the id of a payment, a UUID")
}

fn client_key(violations: &mut Violations, key: &str) {
    violations.check(id::is_client_key(key), "idempotency_key", || {
        format!("{CLIENT_KEY_RULE}; it has {} bytes", key.len())
    });
    no_card(violations, "idempotency_key", key);
}

fn payee(
    core: &Core,
    permit: &Permit,
    violations: &mut Violations,
    text: &str,
    payer: &Principal,
) -> Option<Principal> {
    no_card(violations, "payee", text);
    let parsed = Principal::parse_in(text, &permit.principal().trust_domain());
    let payee = core.parts.accounts.of(&violations.take("payee", parsed)?);
    violations.check(payee != *payer, "payee", || "must not be the payer".to_owned());
    violations.check(payee.kind() != Kind::Node, "payee", || "must not be a node".to_owned());
    Some(payee)
}

fn amount(
    violations: &mut Violations,
    amount: Option<&crate::proto::money::v1::Money>,
) -> Option<Money> {
    let Some(amount) = amount else {
        violations.add("amount", "must be given");
        return None;
    };
    let bounds = 1..=MAX_MINOR_UNITS;
    violations.check(bounds.contains(&amount.minor_units), "amount.minor_units", || {
        MoneyError::Amount.to_string()
    });
    let currency = violations.take("amount.currency", amount.currency.parse::<Currency>())?;
    Some(Money { currency, minor_units: amount.minor_units })
}

fn method(core: &Core, violations: &mut Violations, method: &str) {
    let field = "payment_method";
    if card::contains(method) {
        violations.add(field, "must be the provider's token, not a card number");
    } else if !(1..=MAX_METHOD).contains(&method.len()) {
        let rule = format!("must have 1 to {MAX_METHOD} bytes; it has {}", method.len());
        violations.add(field, rule);
    } else if let Err(rule) = core.parts.provider.check_method(method) {
        violations.add(field, rule);
    }
}

fn description(violations: &mut Violations, text: &str) {
    violations.check(text.len() <= MAX_DESCRIPTION, "description", || {
        format!("must have at most {MAX_DESCRIPTION} bytes; it has {}", text.len())
    });
    no_card(violations, "description", text);
}

/// Names no key: a key may be what must not be repeated.
fn metadata(violations: &mut Violations, pairs: &HashMap<String, String>) {
    let field = "metadata";
    violations.check(pairs.len() <= MAX_PAIRS, field, || {
        format!("must have at most {MAX_PAIRS} pairs; it has {}", pairs.len())
    });
    let keys = pairs.keys().all(|key| (1..=MAX_PAIR_KEY).contains(&key.len()));
    violations.check(keys, field, || format!("keys must have 1 to {MAX_PAIR_KEY} bytes"));
    let values = pairs.values().all(|value| value.len() <= MAX_PAIR_VALUE);
    violations.check(values, field, || format!("values must have at most {MAX_PAIR_VALUE} bytes"));
    let card = pairs.iter().any(|(key, value)| card::contains(key) || card::contains(value));
    violations.check(!card, field, || card::RULE.to_owned());
}

fn no_card(violations: &mut Violations, field: &str, text: &str) {
    violations.check(!card::contains(text), field, || card::RULE.to_owned());
}

/// SHA-256 over a versioned tuple of the fields: each text with its length
/// before it, so that no two requests have the same bytes. Never over protobuf
/// bytes, which differ between encoders.
struct RequestHash(digest::Context);

impl RequestHash {
    fn new(method: Method) -> Self {
        let mut hash = Self(digest::Context::new(&digest::SHA256));
        hash.text("simpul.request.v1").text(method.as_str());
        hash
    }

    fn text(&mut self, text: &str) -> &mut Self {
        self.number(i64::try_from(text.len()).unwrap_or(i64::MAX));
        self.0.update(text.as_bytes());
        self
    }

    fn number(&mut self, number: i64) -> &mut Self {
        self.0.update(&number.to_be_bytes());
        self
    }

    fn finish(self) -> [u8; 32] {
        let mut bytes = [0; 32];
        for (byte, hashed) in bytes.iter_mut().zip(self.0.finish().as_ref()) {
            *byte = *hashed;
        }
        bytes
    }
}
