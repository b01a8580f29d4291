//! The same engine distributed, where SIMPUL_TEST_CITUS_URL names a coordinator
//! with its workers.

use std::sync::Arc;

use simpul::store::StoreError;
use simpul::store::postgres::{PgStore, distribute};

use super::Postgres;

/// Chat's tables distributed by partition, in a database of its own.
pub(crate) struct Citus(Postgres);

impl Citus {
    /// `None`, with a line that says so, where there is no server.
    pub(crate) fn new() -> Option<Self> {
        let fixture = Postgres::on("SIMPUL_TEST_CITUS_URL", "Citus coordinator", "")?;
        fixture.in_database("CREATE EXTENSION citus".to_owned());
        // A single server is coordinator and worker at once.
        fixture.in_database(
            "SELECT citus_set_coordinator_host('localhost', current_setting('port')::int) \
             WHERE NOT EXISTS (SELECT FROM pg_dist_node)"
                .to_owned(),
        );
        Some(Self(fixture))
    }

    pub(crate) async fn open(&self) -> Arc<PgStore> {
        distribute::distribute(self.0.settings(), 4).await.expect("distributed");
        let store = self.0.open().await;
        assert!(store.is_distributed());
        store
    }
}

#[tokio::test]
async fn without_the_extension_nothing_is_distributed() {
    let Some(postgres) = Postgres::new() else { return };
    let refused = distribute::distribute(postgres.settings(), 4).await.expect_err("refused");
    assert!(matches!(&refused, StoreError::Version(text) if text.contains("citus")), "{refused}");
    assert!(!postgres.open().await.is_distributed());
}

#[tokio::test]
async fn declaring_twice_changes_nothing() {
    let Some(citus) = Citus::new() else { return };
    let first = distribute::distribute(citus.0.settings(), 4).await.expect("distributed");
    assert!(first.iter().all(|table| !table.already) && first.len() == 5);
    let again = distribute::distribute(citus.0.settings(), 4).await.expect("distributed");
    assert!(again.iter().all(|table| table.already));
}
