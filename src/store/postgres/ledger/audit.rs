//! Checks the whole ledger against its rules, in one snapshot.
//!
//! Every rule is a statement that returns the rows that break it, as one line
//! of text each; a sound ledger returns none.

use sqlx::postgres::PgPool;

use crate::store::StoreError;
use crate::store::ledger::AuditFindings;

/// Findings told for each rule; one broken rule would otherwise fill memory.
const EACH: usize = 20;

/// How long one rule may take: it reads every entry there is.
const LONG: &str = "SET LOCAL statement_timeout = '10min'";

/// What is checked, and how what breaks it is found.
const RULES: [(&str, &str); 9] = [
    (
        "the entries of a currency do not cancel out",
        "SELECT currency || ' is off by ' || SUM(minor_units) FROM ledger_entry \
         GROUP BY currency HAVING SUM(minor_units) <> 0",
    ),
    (
        "a movement lacks its other side, or the two do not fit",
        "SELECT 'transfer ' || encode(transfer_id, 'hex') || ' step ' || step FROM ledger_entry \
         GROUP BY transfer_id, step \
         HAVING COUNT(*) <> 2 OR SUM(minor_units) <> 0 OR COUNT(DISTINCT kind) <> 1 \
         OR COUNT(DISTINCT currency) <> 1 OR COUNT(DISTINCT payment_id) <> 1 \
         OR COUNT(DISTINCT posted_at) <> 1 OR MIN(account) <> MIN(counterparty) \
         OR MAX(account) <> MAX(counterparty)",
    ),
    (
        "a transfer's steps are not 0, 1, 2 …, or it has two currencies or payments",
        "SELECT 'transfer ' || encode(transfer_id, 'hex') FROM ledger_entry GROUP BY transfer_id \
         HAVING MIN(step) <> 0 OR MAX(step) + 1 <> COUNT(DISTINCT step) \
         OR COUNT(DISTINCT currency) <> 1 OR COUNT(DISTINCT payment_id) <> 1",
    ),
    (
        "an account's positions are not 1, 2, 3 … up to its last",
        "SELECT name || ' at ' || last_position FROM ( \
           SELECT a.name AS name, a.last_position AS last_position, COUNT(e.position) AS entries, \
             COALESCE(MIN(e.position), 1) AS lowest, COALESCE(MAX(e.position), 0) AS highest \
           FROM account a LEFT JOIN ledger_entry e ON e.account = a.name GROUP BY a.name) AS seen \
         WHERE entries <> last_position OR highest <> last_position OR lowest <> 1",
    ),
    (
        "an entry stands on an account that does not exist",
        "SELECT DISTINCT account FROM ledger_entry e \
         WHERE NOT EXISTS (SELECT 1 FROM account WHERE name = e.account)",
    ),
    (
        "a balance after an entry is not the fold of the entries up to it",
        "SELECT account || ' at ' || position FROM ( \
           SELECT account, position, balance_after, \
             SUM(minor_units) OVER (PARTITION BY account, currency ORDER BY position) AS fold \
           FROM ledger_entry) AS walked WHERE fold <> balance_after",
    ),
    (
        "a balance is not the fold of its entries",
        "SELECT account || ' in ' || currency FROM ( \
           SELECT account, currency, posted, 0 AS fold FROM account_balance \
           UNION ALL SELECT account, currency, 0, SUM(minor_units) FROM ledger_entry \
             GROUP BY account, currency) AS both_sides \
         GROUP BY account, currency HAVING SUM(posted) <> SUM(fold)",
    ),
    // Kinds: 1 funding, 2 payment, 3 reserved, 4 refund, 5 released, 6 payback.
    (
        "a payment was posted twice, or gave back more than it took or reserved",
        "SELECT 'payment ' || encode(payment_id, 'hex') FROM ( \
           SELECT payment_id, \
             COUNT(DISTINCT transfer_id) FILTER (WHERE kind = 1) AS fundings, \
             COUNT(DISTINCT transfer_id) FILTER (WHERE kind = 2) AS payments, \
             COALESCE(SUM(minor_units) FILTER (WHERE kind = 1), 0) AS funded, \
             COALESCE(SUM(minor_units) FILTER (WHERE kind = 2), 0) AS paid, \
             COALESCE(SUM(minor_units) FILTER (WHERE kind = 3), 0) AS reserved, \
             COALESCE(SUM(minor_units) FILTER (WHERE kind = 4), 0) AS refunded, \
             COALESCE(SUM(minor_units) FILTER (WHERE kind IN (4, 5)), 0) AS settled, \
             COALESCE(SUM(minor_units) FILTER (WHERE kind = 6), 0) AS paid_back \
           FROM ledger_entry WHERE side = 1 GROUP BY payment_id) AS sums \
         WHERE fundings > 1 OR payments > 1 OR refunded > paid OR settled > reserved \
         OR paid_back > funded",
    ),
    (
        "a payment that was posted still holds",
        "SELECT 'payment ' || encode(payment_id, 'hex') FROM hold h WHERE EXISTS ( \
           SELECT 1 FROM ledger_entry e WHERE e.payment_id = h.payment_id AND e.kind = 2)",
    ),
];

pub(super) async fn audit(pool: &PgPool) -> Result<AuditFindings, StoreError> {
    let mut snapshot = pool.begin_with("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY").await?;
    sqlx::query(LONG).execute(&mut *snapshot).await?;
    let mut findings = Vec::new();
    for (rule, sql) in RULES {
        let bounded = format!("SELECT * FROM ({sql}) AS broken (which) LIMIT {}", EACH + 1);
        let broken: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(bounded)).fetch_all(&mut *snapshot).await?;
        for which in broken.iter().take(EACH) {
            findings.push(format!("{rule}: {which}"));
        }
        if broken.len() > EACH {
            findings.push(format!("{rule}: and more"));
        }
    }
    snapshot.rollback().await?;
    Ok(findings)
}
