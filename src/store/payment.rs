//! Payments, their operations, the outbox and the idempotency keys.

use async_trait::async_trait;

/// The payment area.
#[async_trait]
pub trait PaymentStore: Send + Sync + std::fmt::Debug {}
