use super::*;

/// Everybody is answered though one statement never ends, and books are kept
/// again afterwards.
#[tokio::test]
async fn a_group_that_never_ends_is_undone() {
    let dir = tempfile::tempdir().expect("a directory");
    let shelf = Shelf::file(&dir.path().join("sandbox.db")).await.expect("books");
    let desk = Desk::open_within(shelf, Duration::from_secs(1));
    let hangs = desk.book(|_| Box::pin(std::future::pending::<Result<(), StoreError>>()));
    let error = hangs.await.expect_err("undone");
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    // A machine that is busy may need more than a second for one, now and then.
    while desk.book(|rows| Box::pin(async move { rows.read(0).await })).await.is_err() {}
    desk.close().await;
}
