//! The TransactionService.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tonic::{Request, Response, Status};

use super::Touched;
use super::history::{Reading, transaction};
use super::request::{self, History};
use crate::drain::Watch;
use crate::money::Money;
use crate::principal::Principal;
use crate::proto::transaction::v1 as pb;
use crate::proto::transaction::v1::transaction_service_server::{
    TransactionService, TransactionServiceServer,
};
use crate::refusal::Refusal;
use crate::security::accounts::Accounts;
use crate::security::audit::AuditSubject;
use crate::security::permit::Permit;
use crate::store::LedgerStore;
use crate::store::ledger::AccountName;

/// Serves histories and balances from the ledger. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Transactions {
    store: Arc<dyn LedgerStore>,
    accounts: Accounts,
    touched: Touched,
    drain: Watch,
}

impl Transactions {
    /// Over a ledger. `touched` wakes those who follow, `drain` ends them.
    pub fn new(
        store: Arc<dyn LedgerStore>,
        accounts: Accounts,
        touched: Touched,
        drain: Watch,
    ) -> Self {
        Self { store, accounts, touched, drain }
    }

    /// The service for the server's routes.
    pub fn service(self) -> TransactionServiceServer<Self> {
        TransactionServiceServer::new(self)
    }

    async fn transaction(
        &self,
        permit: &Permit,
        subject: &AuditSubject,
        id: &str,
    ) -> Result<pb::Transaction, Refusal> {
        let id = request::transaction_id(id)?;
        subject.set(&format!("transaction {id}"));
        let entry = self.store.ledger_entry(id).await?;
        let entry = entry.ok_or_else(|| Refusal::not_found("transaction"))?;
        subject.set(&format!("transaction {} of {}", entry.id, entry.account.as_str()));
        // The node's own accounts are no principal's: for those who read anyone's.
        let account = entry.account.as_str().parse::<Principal>();
        let own = account.is_ok_and(|account| self.accounts.owns(permit, &account));
        subject.set_others(!own);
        if own || permit.caller().roles.intersects(request::anyones()) {
            Ok(transaction(&entry))
        } else {
            Err(Refusal::not_found("transaction"))
        }
    }

    async fn balance(
        &self,
        permit: &Permit,
        subject: &AuditSubject,
        account: &str,
    ) -> Result<pb::GetBalanceResponse, Refusal> {
        let account = request::account(&self.accounts, permit, subject, account)?;
        let balances = self.store.balances(&AccountName::of(&account)).await?;
        let balances = balances
            .into_iter()
            .map(|balance| {
                let held = Money { minor_units: balance.held, ..balance.posted };
                pb::Balance { posted: Some(balance.posted.to_proto()), held: Some(held.to_proto()) }
            })
            .collect();
        Ok(pb::GetBalanceResponse { account: account.to_string(), balances })
    }
}

#[tonic::async_trait]
impl TransactionService for Transactions {
    type GetTransactionHistoryStream =
        Pin<Box<dyn Stream<Item = Result<pb::GetTransactionHistoryResponse, Status>> + Send>>;

    async fn get_transaction_history(
        &self,
        request: Request<pb::GetTransactionHistoryRequest>,
    ) -> Result<Response<Self::GetTransactionHistoryStream>, Status> {
        let permit = Permit::of(&request)?;
        let subject = AuditSubject::of_request(&request);
        let ask = History::parse(&self.accounts, &permit, &subject, request.get_ref())?;
        let reading =
            Reading::begin(self.store.clone(), self.drain.clone(), &self.touched, ask).await?;
        Ok(Response::new(Box::pin(reading.stream())))
    }

    async fn get_transaction(
        &self,
        request: Request<pb::GetTransactionRequest>,
    ) -> Result<Response<pb::GetTransactionResponse>, Status> {
        let permit = Permit::of(&request)?;
        let subject = AuditSubject::of_request(&request);
        let id = &request.get_ref().transaction_id;
        let transaction = self.transaction(&permit, &subject, id).await?;
        Ok(Response::new(pb::GetTransactionResponse { transaction: Some(transaction) }))
    }

    async fn get_balance(
        &self,
        request: Request<pb::GetBalanceRequest>,
    ) -> Result<Response<pb::GetBalanceResponse>, Status> {
        let permit = Permit::of(&request)?;
        let subject = AuditSubject::of_request(&request);
        Ok(Response::new(self.balance(&permit, &subject, &request.get_ref().account).await?))
    }
}
