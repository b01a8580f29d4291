use super::*;

#[test]
fn a_subject_is_bounded_and_its_last_word_stands() {
    let subject = AuditSubject::default();
    subject.set("another");
    subject.set(&"é".repeat(300));
    subject.set("");
    assert_eq!(subject.get().map(|text| text.len()), Some(256));
}

#[tokio::test]
async fn what_does_not_fit_is_counted_and_said() {
    let dir = tempfile::tempdir().expect("a folder");
    let lost = Counter::default();
    let path = dir.path().join("audit.log");
    let file = std::fs::File::create(&path).expect("a file");
    let (queue, entries) = sync_channel(2);
    let dropped = Arc::new(AtomicU64::new(0));
    let log = AuditLog { queue, dropped: dropped.clone(), lost: lost.clone() };
    let policy = crate::security::policy::Policy::embedded(false).expect("a policy");
    let method = policy.find("/simpul.identity.v1.IdentityService/WhoAmI").expect("known");
    // Nobody writes yet.
    for _ in 0..5 {
        log.record(Record {
            at: SystemTime::UNIX_EPOCH,
            caller: None,
            address: None,
            method: method.clone(),
            frame: None,
            subject: AuditSubject::default(),
            code: Code::Ok,
            why: None,
            trace_id: None,
        });
    }
    assert_eq!(lost.get(), 3);
    let sink = Sink::File(io::BufWriter::new(file));
    let writer = Writer { sink, dropped, lost, failing: false };
    let thread = std::thread::spawn(move || writer.run(&entries));
    log.flush().await;
    let text = std::fs::read_to_string(&path).expect("written");
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert_eq!(lines[0], r#"{"records_lost":3}"#);
    assert!(lines[1].contains(r#""time":"1970-01-01T00:00:00Z""#), "{text}");
    drop(log);
    thread.join().expect("it ends with the last handle");
}
