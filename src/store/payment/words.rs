//! The words of a payment and the numbers under which they are stored.

use crate::store::words::words;

words! {
    /// How far a payment is; the numbers are the contract's.
    Status {
        /// Recorded.
        Created = 1, "CREATED";
        /// The payer must confirm.
        RequiresAction = 2, "REQUIRES_ACTION";
        /// The provider decides later.
        Pending = 3, "PENDING";
        /// Reserved.
        Authorized = 4, "AUTHORIZED";
        /// Captured.
        Succeeded = 5, "SUCCEEDED";
        /// Partly given back.
        PartiallyRefunded = 6, "PARTIALLY_REFUNDED";
        /// Given back.
        Refunded = 7, "REFUNDED";
        /// Declined or not possible.
        Failed = 8, "FAILED";
        /// Given up.
        Canceled = 9, "CANCELED";
        /// Its time passed.
        Expired = 10, "EXPIRED";
    }
}

words! {
    /// When money moves; the numbers are the contract's.
    CaptureMode {
        /// At once.
        Automatic = 1, "AUTOMATIC";
        /// When it is captured.
        Manual = 2, "MANUAL";
    }
}

words! {
    /// What is done to a payment.
    OperationKind {
        /// Takes or reserves the money.
        Charge = 1, "CHARGE";
        /// Takes what was reserved.
        Capture = 2, "CAPTURE";
        /// Gives it up.
        Cancel = 3, "CANCEL";
        /// Gives back what was taken.
        Refund = 4, "REFUND";
    }
}

words! {
    /// How far an operation is.
    OperationStatus {
        /// Not sent.
        New = 1, "NEW";
        /// Being sent: after a crash nobody knows whether it arrived.
        Submitting = 2, "SUBMITTING";
        /// The provider took it.
        Done = 3, "DONE";
        /// The provider refused it, or it was never sent and given up.
        Failed = 4, "FAILED";
        /// The provider may have it.
        Unknown = 5, "UNKNOWN";
    }
}

words! {
    /// What an outbox row asks for.
    Task {
        /// Bring the operation to its end.
        Drive = 1, "DRIVE";
        /// Post the receipt.
        Receipt = 2, "RECEIPT";
    }
}

words! {
    /// A method of the service that takes an idempotency key.
    Method {
        /// ProcessPayment.
        Process = 1, "ProcessPayment";
        /// CapturePayment.
        Capture = 2, "CapturePayment";
        /// CancelPayment.
        Cancel = 3, "CancelPayment";
        /// RefundPayment.
        Refund = 4, "RefundPayment";
    }
}

impl Status {
    /// Whether nothing can follow.
    pub fn is_final(self) -> bool {
        matches!(self, Status::Refunded | Status::Failed | Status::Canceled | Status::Expired)
    }

    /// Whether it ended without money having moved.
    pub fn ended_unpaid(self) -> bool {
        matches!(self, Status::Failed | Status::Canceled | Status::Expired)
    }

    /// Whether the provider has yet to decide on the charge.
    pub fn is_open(self) -> bool {
        matches!(self, Status::Created | Status::RequiresAction | Status::Pending)
    }
}

impl OperationStatus {
    /// Whether it is under way: a payment has at most one such operation.
    pub fn is_live(self) -> bool {
        matches!(
            self,
            OperationStatus::New | OperationStatus::Submitting | OperationStatus::Unknown
        )
    }
}
