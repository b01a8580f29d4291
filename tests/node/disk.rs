//! A disk that is full, in truth: a small file system of its own.

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use simpul::proto::chat::v1::SendMessageRequest;
use simpul::proto::chat::v1::chat_service_client::ChatServiceClient;
use simpul::proto::chat::v1::join::From;
use tonic::{Code, Status};
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;
use tonic_types::StatusExt;

use crate::support::{Node, eventually, not_run, with_token};
use crate::talk::{Session, room};

/// A mounted file system; unmounted when dropped.
struct Mounted(tempfile::TempDir);

impl Mounted {
    /// `None` where we may not mount.
    fn tmpfs(size: &str) -> Option<Mounted> {
        let dir = tempfile::tempdir().expect("a directory");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={size},mode=700"), "tmpfs"]);
        let status = mount.arg(dir.path()).stderr(Stdio::null()).status();
        status.is_ok_and(|status| status.success()).then_some(Mounted(dir))
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

/// Takes all space that is left.
fn fill(file: &Path) {
    let mut ballast =
        std::fs::OpenOptions::new().create(true).append(true).open(file).expect("a file");
    let mut piece = 64 * 1024;
    while piece > 0 {
        if ballast.write_all(&vec![0; piece]).is_err() {
            piece /= 2;
        }
    }
}

fn message(n: usize) -> SendMessageRequest {
    SendMessageRequest {
        room_id: "r".to_owned(),
        client_message_id: format!("m{n}"),
        body: format!("{n:.<4000}"),
        reply_to: 0,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_acknowledges_nothing_and_is_recovered_from() {
    let Some(disk) = Mounted::tmpfs("24m") else {
        return not_run("the test of a full disk: mounting a file system needs root");
    };
    let node = Node::start_in(disk.0.path(), &[]);
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    room(channel.clone(), &alice, "r", &[]).await;
    let mut client = ChatServiceClient::new(channel.clone());
    let mut health = HealthClient::new(channel.clone());
    let mut acked = Vec::new();
    let mut send = async |n: usize| -> Result<u64, Status> {
        let sent = client.send_message(with_token(message(n), &alice)).await?;
        Ok(sent.into_inner().seq)
    };
    for n in 0..20 {
        acked.push((n, send(n).await.expect("there is space")));
    }
    let ballast = disk.0.path().join("ballast");
    let mut refused = None;
    for n in 20..5000 {
        fill(&ballast);
        match send(n).await {
            Ok(seq) => acked.push((n, seq)),
            Err(status) => {
                refused = Some((n, status));
                break;
            }
        }
    }
    let (n, status) = refused.expect("a full disk refuses");
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let details = status.get_error_details();
    assert_eq!(details.error_info().expect("a reason").reason, "STORE_UNAVAILABLE");
    assert!(details.retry_info().is_some_and(|retry| retry.retry_delay.is_some()), "{status:?}");
    let mut state = async || {
        let answer = health.check(HealthCheckRequest::default()).await.expect("it lives");
        answer.into_inner().status()
    };
    eventually("NOT_SERVING", async || (state().await == ServingStatus::NotServing).then_some(()))
        .await;
    assert_eq!(node.admin("/readyz").0, 503);
    for again in 0..3 {
        let refused = send(n + again).await.expect_err("still full");
        assert_eq!(refused.code(), Code::Unavailable, "{refused:?}");
    }

    std::fs::remove_file(&ballast).expect("space again");
    eventually("SERVING again", async || (state().await == ServingStatus::Serving).then_some(()))
        .await;
    let seq = eventually("it takes messages again", async || match send(n).await {
        Ok(seq) => Some(seq),
        Err(status) => {
            assert_eq!(status.code(), Code::Unavailable, "{status:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
            None
        }
    })
    .await;
    acked.push((n, seq));

    // Each acknowledged message stands once at its place; entry 1 is the room.
    let mut reader = Session::join(channel, &alice, "r", From::Cursor(1)).await;
    for (n, seq) in acked {
        let found = loop {
            let found = reader.message().await;
            if found.seq == seq {
                break found;
            }
            assert!(found.seq < seq, "m{n} is not at {seq}");
        };
        assert_eq!(found.client_message_id, format!("m{n}"));
    }
}
