//! Keys and authorities that change under a running node: what rested on the
//! former ones ends, calls and open streams alike.

use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, PKCS_RSA_SHA256};
use serde_json::{Value, json};
use simpul::proto::chat::v1::ChatRequest;
use simpul::proto::chat::v1::chat_service_client::ChatServiceClient;
use simpul::proto::chat::v1::join::From;
use simpul::proto::identity::v1::identity_service_client::IdentityServiceClient;
use simpul::proto::identity::v1::{WhoAmIRequest, WhoAmIResponse};
use simpul::proto::transaction::v1::GetTransactionHistoryRequest;
use simpul::proto::transaction::v1::transaction_service_client::TransactionServiceClient;
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tonic_types::StatusExt;

use crate::support::{LONG, Node, cli_in, eventually, with_token};
use crate::talk::{Session, room};

/// How soon what rested on a withdrawn key ends: the files are looked at ten
/// times a second here, and then a second is promised.
const SOON: Duration = Duration::from_millis(1500);

const OFTEN: (&str, &str) = ("SIMPUL_TLS__RELOAD_INTERVAL", "100ms");

async fn who_am_i(channel: &Channel, token: &str) -> Result<WhoAmIResponse, Status> {
    let mut client = IdentityServiceClient::new(channel.clone());
    client.who_am_i(with_token(WhoAmIRequest {}, token)).await.map(tonic::Response::into_inner)
}

/// A key's public half as its issuer publishes it.
fn jwk(key: &KeyPair, kid: &str) -> Value {
    let public = key.public_key_raw();
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    if key.is_compatible(&PKCS_ED25519) {
        json!({"kty": "OKP", "crv": "Ed25519", "kid": kid, "x": text(public)})
    } else if key.is_compatible(&PKCS_ECDSA_P256_SHA256) {
        let (x, y) = (text(&public[1..33]), text(&public[33..]));
        json!({"kty": "EC", "crv": "P-256", "kid": kid, "x": x, "y": y})
    } else {
        // RSAPublicKey: a sequence of modulus and exponent, with a 2,048 bit
        // modulus 30 82 .. .. 02 82 01 01 00 <256 bytes> 02 03 <3 bytes>.
        assert_eq!((public.len(), public[4..9].to_vec()), (270, vec![2, 0x82, 1, 1, 0]));
        json!({"kty": "RSA", "kid": kid, "n": text(&public[9..265]), "e": text(&public[267..])})
    }
}

fn publish(file: &Path, keys: &[Value]) {
    // Whole or not at all, as one should.
    let new = file.with_extension("new");
    std::fs::write(&new, json!({ "keys": keys }).to_string()).expect("written");
    std::fs::rename(new, file).expect("in its place");
}

fn token(key: &KeyPair, algorithm: Algorithm, kid: &str, sub: &str) -> String {
    let pem = key.serialize_pem();
    let pem = pem.as_bytes();
    let signer = match algorithm {
        Algorithm::RS256 => EncodingKey::from_rsa_pem(pem),
        Algorithm::ES256 => EncodingKey::from_ec_pem(pem),
        _ => EncodingKey::from_ed_pem(pem),
    };
    let exp = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs() + 600;
    let claims = json!({
        "iss": "https://id.corp.test", "aud": "simpul", "sub": sub, "exp": exp,
        "roles": ["customer"],
    });
    let header = Header { kid: Some(kid.to_owned()), ..Header::new(algorithm) };
    encode(&header, &claims, &signer.expect("a key")).expect("signed")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_key_ends_its_streams_and_calls_until_it_is_back() {
    let node = Node::start_with(&[OFTEN]);
    let alice = node.token("alice", &[]);
    let channel = node.channel().await;
    room(channel.clone(), &alice, "r", &[]).await;
    let mut session = Session::join(channel.clone(), &alice, "r", From::Latest(true)).await;
    let mut histories = TransactionServiceClient::new(channel.clone());
    let follow = GetTransactionHistoryRequest { follow: true, ..Default::default() };
    let mut history =
        histories.get_transaction_history(with_token(follow, &alice)).await.expect("a stream");

    let file = node.dir().join("dev/jwks.json");
    let before = std::fs::read(&file).expect("the key set");
    let stranger = KeyPair::generate_for(&PKCS_ED25519).expect("a key");
    publish(&file, &[jwk(&stranger, "other")]);
    let begun = Instant::now();
    let ended = session.end().await.expect_err("it ends with a status");
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended:?}");
    assert_eq!(ended.get_details_error_info().expect("a reason").reason, "TOKEN_INVALID");
    let ended = loop {
        let next = tokio::time::timeout(LONG, history.get_mut().message()).await;
        match next.expect("an end in time") {
            Ok(Some(_)) => {}
            Ok(None) => panic!("the history ended without a status"),
            Err(status) => break status,
        }
    };
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended:?}");
    assert!(begun.elapsed() < SOON, "{:?}", begun.elapsed());
    let refused = who_am_i(&channel, &alice).await.expect_err("the key is gone");
    assert_eq!(refused.code(), Code::Unauthenticated);

    std::fs::write(&file, before).expect("as it was");
    eventually("the key is believed again", async || who_am_i(&channel, &alice).await.ok()).await;
    let mut session = Session::join(channel, &alice, "r", From::Latest(true)).await;
    session.send("r", "m", "here again").await;
    session.sent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_every_kind_are_believed_and_each_ends_alone() {
    let dir = tempfile::tempdir().expect("a directory");
    let keys = [
        (KeyPair::generate_for(&PKCS_RSA_SHA256).expect("a key"), Algorithm::RS256, "rsa"),
        (KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key"), Algorithm::ES256, "ec"),
        (KeyPair::generate_for(&PKCS_ED25519).expect("a key"), Algorithm::EdDSA, "ed"),
    ];
    let public: Vec<Value> = keys.iter().map(|(key, _, kid)| jwk(key, kid)).collect();
    let file = dir.path().join("keys.json");
    publish(&file, &public);
    let config = "[[auth.issuer]]\nissuer = \"https://id.corp.test\"\njwks_file = \"keys.json\"\n\
                  trust_domain = \"corp.test\"\nkinds = [\"user\"]\nroles = [\"customer\"]\n";
    std::fs::write(dir.path().join("node.toml"), config).expect("written");
    let node = Node::start_in(dir.path(), &[OFTEN]);
    let channel = node.channel().await;
    let mut sessions = Vec::new();
    for (key, algorithm, kid) in &keys {
        let token = token(key, *algorithm, kid, kid);
        let me = who_am_i(&channel, &token).await.unwrap_or_else(|e| panic!("{kid}: {e:?}"));
        assert_eq!(me.principal, format!("user/{kid}@corp.test"));
        // Named as another's key, or signed by another: the key decides how.
        for other in ["rsa", "ec", "ed"].into_iter().filter(|other| other != kid) {
            let swapped = self::token(key, *algorithm, other, kid);
            let refused = who_am_i(&channel, &swapped).await.expect_err("another's name");
            assert_eq!(refused.code(), Code::Unauthenticated);
        }
        room(channel.clone(), &token, kid, &[]).await;
        sessions.push((Session::join(channel.clone(), &token, kid, From::Latest(true)).await, kid));
    }
    publish(&file, &public[1..]);
    let (mut rsa, _) = sessions.remove(0);
    let ended = tokio::time::timeout(SOON, rsa.end()).await.expect("soon").expect_err("a status");
    assert_eq!(ended.code(), Code::Unauthenticated);
    for (session, kid) in &mut sessions {
        session.send(kid, "m", "still here").await;
        session.sent().await;
    }
}

/// A folder with an authority of its own and a certificate for alice.
fn authority(dir: &Path, name: &str) -> (Vec<u8>, Vec<u8>) {
    let folder = dir.join(name);
    let at = folder.to_str().expect("UTF-8");
    for args in [
        vec!["cert", "init", "--dir", at],
        vec!["cert", "issue", "alice", "--dir", at, "--principal", "user/alice@corp.test"],
    ] {
        let output = cli_in(dir, &args, "");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{args:?}: {said}");
    }
    let read = |file: &str| std::fs::read(folder.join(file)).expect("a PEM file");
    (read("alice.pem"), read("alice-key.pem"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_swapped_bundle_ends_the_connections_of_the_former_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let (old, old_key) = authority(dir.path(), "v1");
    let (new, new_key) = authority(dir.path(), "v2");
    symlink("v1", dir.path().join("bundle")).expect("linked");
    let config = "[[auth.ca]]\nfile = \"bundle/ca.pem\"\ntrust_domain = \"corp.test\"\n\
                  kinds = [\"user\"]\nroles = [\"customer\"]\ndefault_roles = [\"customer\"]\n";
    std::fs::write(dir.path().join("node.toml"), config).expect("written");
    let node = Node::start_in(dir.path(), &[OFTEN]);
    let bob = node.token("bob", &[]);
    let without = node.channel().await;
    room(without.clone(), &bob, "r", &[]).await;
    let mut other = Session::join(without, &bob, "r", From::Latest(true)).await;
    let me = async |channel: Channel| {
        let mut client = IdentityServiceClient::new(channel);
        client.who_am_i(Request::new(WhoAmIRequest {})).await.map(tonic::Response::into_inner)
    };
    let early = node.channel_as(Some((&new, &new_key))).await;
    me(early).await.expect_err("nobody vouches for it yet");
    let channel = node.channel_as(Some((&old, &old_key))).await;
    let known = me(channel.clone()).await.expect("the authority is believed");
    assert_eq!(known.principal, "user/alice@corp.test");
    let mut client = ChatServiceClient::new(channel.clone());
    let asking = tokio_stream::pending::<ChatRequest>();
    let mut stream = client.chat(asking).await.expect("a stream").into_inner();

    symlink("v2", dir.path().join("swap")).expect("linked");
    std::fs::rename(dir.path().join("swap"), dir.path().join("bundle")).expect("swapped");
    let next = tokio::time::timeout(SOON, stream.message()).await.expect("soon");
    let ended = next.expect_err("it ends with a status");
    assert_eq!(ended.code(), Code::Unauthenticated, "{ended:?}");
    assert_eq!(ended.get_details_error_info().expect("a reason").reason, "CERTIFICATE_INVALID");
    me(channel).await.expect_err("the former authority is not believed");
    let channel = node.channel_as(Some((&new, &new_key))).await;
    assert_eq!(me(channel).await.expect("the new one is").principal, "user/alice@corp.test");
    // Who came without a certificate goes on.
    other.send("r", "m", "still here").await;
    other.sent().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_required_certificate_is_required_of_everybody() {
    let node = Node::start_with(&[("SIMPUL_TLS__CLIENT_AUTH", "required")]);
    let (chain, key) = node.certificate("alice");
    let channel = node.channel_as(Some((&chain, &key))).await;
    let alice = node.token("alice", &[]);
    assert_eq!(who_am_i(&channel, &alice).await.expect("both").principal, "user/alice@dev.simpul");

    let strange = tempfile::tempdir().expect("a directory");
    let (chain, key) = authority(strange.path(), "ca");
    for identity in [None, Some((&chain[..], &key[..]))] {
        let reached = async {
            let mut stream = node.try_stream(identity).await?;
            // The refusal comes after a TLS 1.3 client's side of the handshake.
            use tokio::io::AsyncReadExt;
            stream.read_u8().await
        };
        let refused = tokio::time::timeout(LONG, reached).await.expect("in time");
        refused.expect_err("a token alone does not get in");
    }
    let failed = node.admin("/metrics").1;
    assert!(failed.contains("handshake_failures_total{reason=\"tls\"} 2"), "{failed}");
}
