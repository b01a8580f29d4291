//! PostgreSQL for the tests: a server that SIMPUL_TEST_POSTGRES_URL names, as a
//! user who may make databases and roles, and on it a database for each case.

#![allow(clippy::unwrap_used)]

mod citus;
mod refusals;
mod sessions;

use std::sync::Arc;
use std::time::Duration;

use secrecy::SecretString;
use simpul::store::StoreError;
use simpul::store::postgres::{PgSettings, PgStore};
use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, ConnectOptions as _};
use uuid::Uuid;

pub(crate) use self::citus::Citus;

/// A database of its own, dropped with it.
pub(crate) struct Postgres {
    server: String,
    pub(crate) database: String,
}

impl Postgres {
    /// `None`, with a line that says so, where there is no server.
    pub(crate) fn new() -> Option<Self> {
        Self::with("")
    }

    /// As [`new`](Self::new), with more said to CREATE DATABASE.
    pub(crate) fn with(options: &str) -> Option<Self> {
        Self::on("SIMPUL_TEST_POSTGRES_URL", "PostgreSQL server", options)
    }

    /// On the server that the variable names.
    fn on(variable: &str, what: &str, options: &str) -> Option<Self> {
        let Ok(server) = std::env::var(variable) else {
            println!("NOT RUN: {variable} names no {what}");
            return None;
        };
        let fixture = Self { server, database: format!("simpul_{}", Uuid::now_v7().simple()) };
        fixture.on_server(format!("CREATE DATABASE {} {options}", fixture.database));
        Some(fixture)
    }

    /// Runs a statement on the server's own database, to its end, also where
    /// nothing can be awaited.
    pub(crate) fn on_server(&self, sql: String) {
        Self::run(&self.server, sql);
    }

    /// As [`on_server`](Self::on_server), on the case's database.
    pub(crate) fn in_database(&self, sql: String) {
        Self::run(&self.url(""), sql);
    }

    fn run(url: &str, sql: String) {
        let options: PgConnectOptions = url.parse().expect("a URL");
        let running = async move {
            let mut connection = options.connect().await.expect("connected");
            sqlx::query(AssertSqlSafe(sql)).execute(&mut connection).await.expect("done");
        };
        std::thread::spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(running);
        })
        .join()
        .expect("joined");
    }

    /// The database's address, for another user than the server's if one is
    /// named.
    pub(crate) fn url(&self, user: &str) -> String {
        let (scheme, rest) = self.server.split_once("://").expect("a URL");
        let (base, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (authority, _) = base.split_once('/').unwrap_or((base, ""));
        let (owner, host) = authority.rsplit_once('@').unwrap_or(("", authority));
        let user = if user.is_empty() { owner } else { user };
        format!("{scheme}://{user}@{host}/{}?{query}", self.database)
    }

    pub(crate) fn settings(&self) -> PgSettings {
        PgSettings {
            url: SecretString::from(self.url("")),
            node: "n1".to_owned(),
            incarnation: Uuid::now_v7().to_string(),
            connections: 8,
            connect_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(5),
        }
    }

    pub(crate) async fn try_open(&self) -> Result<PgStore, StoreError> {
        PgStore::open(self.settings()).await
    }

    pub(crate) async fn open(&self) -> Arc<PgStore> {
        Arc::new(self.try_open().await.expect("opened"))
    }

    /// A session as a person with psql has, under a name.
    pub(crate) async fn session(&self, name: &str) -> PgConnection {
        let options: PgConnectOptions = self.url("").parse().expect("a URL");
        options.application_name(name).connect().await.expect("connected")
    }

    pub(crate) async fn by_hand(&self, sql: &str) {
        let mut session = self.session("by hand").await;
        sqlx::raw_sql(AssertSqlSafe(sql)).execute(&mut session).await.expect("done");
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.on_server(format!("DROP DATABASE {} WITH (FORCE)", self.database));
    }
}
