use std::time::{Duration, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ED25519};
use serde_json::{Value, json};

use super::*;
use crate::principal::Role;

const NOW: u64 = 1_800_000_000;

#[derive(Debug)]
struct Fixed;

impl Clock for Fixed {
    fn now(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(NOW)
    }
}

fn ed25519() -> KeyPair {
    KeyPair::generate_for(&PKCS_ED25519).expect("a key")
}

fn jwk(key: &KeyPair, id: &str) -> Value {
    let public = key.public_key_raw();
    if key.is_compatible(&PKCS_ED25519) {
        let x = URL_SAFE_NO_PAD.encode(public);
        return json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": x});
    }
    let x = URL_SAFE_NO_PAD.encode(&public[1..33]);
    let y = URL_SAFE_NO_PAD.encode(&public[33..]);
    json!({"kty": "EC", "crv": "P-256", "kid": id, "x": x, "y": y})
}

fn keys(keys: &[Value]) -> Arc<KeySet> {
    let set = json!({ "keys": keys }).to_string();
    Arc::new(KeySet::read(set.as_bytes(), true).expect("a key set"))
}

fn rules() -> IssuerRules {
    IssuerRules {
        issuer: "https://id.corp.test".into(),
        audience: "simpul".into(),
        domain: "corp.test".parse().expect("a trust domain"),
        kinds: vec![Kind::User],
        roles: [Role::Customer, Role::Merchant].into_iter().collect(),
    }
}

fn tokens(set: Arc<KeySet>) -> Tokens {
    Tokens::new(vec![(rules(), set)], Arc::default(), Arc::new(Fixed))
}

fn claims() -> Value {
    json!({
        "iss": "https://id.corp.test",
        "sub": "alice",
        "aud": ["other", "simpul"],
        "exp": NOW + 60,
        "nbf": NOW,
        "roles": ["customer", "operator", "no-such-role"],
    })
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[name] = value;
    claims
}

fn without(name: &str) -> Value {
    let mut claims = claims();
    claims.as_object_mut().expect("an object").remove(name);
    claims
}

/// Signs whatever header and claims, as an attacker with a key can.
fn sign(header: &Value, claims: &Value, key: &KeyPair, algorithm: Algorithm) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", encode(header), encode(claims));
    let der = key.serialized_der();
    let key = match algorithm {
        Algorithm::EdDSA => EncodingKey::from_ed_der(der),
        Algorithm::ES256 => EncodingKey::from_ec_der(der),
        _ => EncodingKey::from_secret(der),
    };
    let signature =
        jsonwebtoken::crypto::sign(message.as_bytes(), &key, algorithm).expect("a signature");
    format!("{message}.{signature}")
}

fn eddsa(claims: &Value, key: &KeyPair) -> String {
    sign(&json!({"alg": "EdDSA", "kid": "k1"}), claims, key, Algorithm::EdDSA)
}

#[test]
fn a_good_token_names_its_subject_and_is_verified_once() {
    let key = ed25519();
    let tokens = tokens(keys(&[jwk(&key, "k1")]));
    let token = eddsa(&claims(), &key);
    assert!(tokens.known(token.as_bytes()).is_none());
    let verified = tokens.verify(token.as_bytes()).expect("a good token");
    assert_eq!(verified.caller.principal.as_str(), "user/alice@corp.test");
    // What the issuer may not grant is dropped.
    assert_eq!(verified.caller.roles, [Role::Customer].into_iter().collect());
    let known = tokens.known(token.as_bytes()).expect("it is kept");
    assert!(Arc::ptr_eq(&known, &verified));
    // Time goes on although the signature is known.
    let end = UNIX_EPOCH + Duration::from_secs(NOW + 60);
    assert!(known.check(end - Duration::from_nanos(1)).is_ok());
    assert_eq!(known.check(end).expect_err("over").reason, Reason::TokenExpired);
    // Other keys know nothing of it.
    tokens.replace(vec![(rules(), keys(&[jwk(&ed25519(), "k1")]))]);
    assert!(tokens.known(token.as_bytes()).is_none());
    assert_eq!(refused(&tokens, &token), Reason::TokenInvalid);
}

#[test]
fn es256_is_known_too() {
    let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let tokens = tokens(keys(&[jwk(&key, "k1")]));
    let header = json!({"alg": "ES256", "kid": "k1"});
    let token = sign(&header, &claims(), &key, Algorithm::ES256);
    assert!(tokens.verify(token.as_bytes()).is_ok());
}

fn refused(tokens: &Tokens, token: &str) -> Reason {
    let refusal = tokens.verify(token.as_bytes()).expect_err("must be refused");
    for part in token.split('.').filter(|part| part.len() > 3) {
        assert!(!refusal.message.contains(part), "{refusal}");
    }
    assert!(tokens.known(token.as_bytes()).is_none(), "what is refused is not kept");
    refusal.reason
}

#[test]
fn wrong_claims_are_refused() {
    let key = ed25519();
    let tokens = tokens(keys(&[jwk(&key, "k1")]));
    for (claims, wanted) in [
        (with("iss", json!("https://other.test")), Reason::TokenInvalid),
        (with("aud", json!("other")), Reason::TokenInvalid),
        (with("aud", json!([])), Reason::TokenInvalid),
        (with("exp", json!(NOW)), Reason::TokenExpired),
        (with("exp", json!(NOW - 1)), Reason::TokenExpired),
        (with("exp", json!("soon")), Reason::TokenInvalid),
        (with("exp", json!(1e300)), Reason::TokenInvalid),
        (with("exp", json!(-1)), Reason::TokenInvalid),
        (with("nbf", json!(NOW + 1)), Reason::TokenExpired),
        (with("sub", json!("")), Reason::TokenInvalid),
        (with("sub", json!("alice@other.test")), Reason::TokenInvalid),
        (with("sub", json!("service/alice")), Reason::TokenInvalid),
        (with("kind", json!("service")), Reason::TokenInvalid),
        (with("kind", json!("node")), Reason::TokenInvalid),
        (with("cnf", json!({"jkt": "x"})), Reason::TokenInvalid),
        (with("cnf", json!({"x5t#S256": "short"})), Reason::TokenInvalid),
        (without("iss"), Reason::TokenInvalid),
        (without("sub"), Reason::TokenInvalid),
        (without("aud"), Reason::TokenInvalid),
        (without("exp"), Reason::TokenInvalid),
    ] {
        assert_eq!(refused(&tokens, &eddsa(&claims, &key)), wanted, "{claims}");
    }
}

#[test]
fn forged_tokens_are_refused() {
    let key = ed25519();
    let other = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let tokens = tokens(keys(&[jwk(&key, "k1"), jwk(&other, "k2")]));
    let good = eddsa(&claims(), &key);
    assert!(tokens.verify(good.as_bytes()).is_ok());
    let signed = |header: Value| sign(&header, &claims(), &key, Algorithm::EdDSA);
    let (message, _) = good.rsplit_once('.').expect("three parts");
    let (header, _) = message.split_once('.').expect("three parts");
    let admin = URL_SAFE_NO_PAD.encode(with("sub", json!("root")).to_string());
    let signature = good.rsplit('.').next().expect("three parts");
    let hmac = sign(&json!({"alg": "HS256", "kid": "k1"}), &claims(), &key, Algorithm::HS256);
    for (name, token) in [
        ("stranger's", eddsa(&claims(), &ed25519())),
        ("alg none", format!("{}.", signed(json!({"alg": "none"})).rsplit_once('.').expect("").0)),
        ("alg none, signed", signed(json!({"alg": "none", "kid": "k1"}))),
        ("alg swapped", hmac),
        ("alg of another key", signed(json!({"alg": "ES256", "kid": "k1"}))),
        ("another key's kid", signed(json!({"alg": "EdDSA", "kid": "k2"}))),
        ("unknown kid", signed(json!({"alg": "EdDSA", "kid": "k3"}))),
        ("no kid with two keys", signed(json!({"alg": "EdDSA"}))),
        ("crit", signed(json!({"alg": "EdDSA", "kid": "k1", "crit": ["exp"]}))),
        ("other claims", format!("{header}.{admin}.{signature}")),
        ("no signature", format!("{message}.")),
        ("cut short", good[..good.len() - 2].to_owned()),
        ("two parts", message.to_owned()),
        ("four parts", format!("{good}.{signature}")),
        ("empty", String::new()),
        ("padded", format!("{good}=")),
    ] {
        assert_eq!(refused(&tokens, &token), Reason::TokenInvalid, "{name}");
    }
    let long = eddsa(&with("pad", json!("x".repeat(MAX_TOKEN))), &key);
    assert_eq!(refused(&tokens, &long), Reason::TokenInvalid);
}

#[test]
fn a_set_that_is_not_of_public_keys_is_refused() {
    let key = jwk(&ed25519(), "k1");
    let mut private = key.clone();
    private["d"] = json!("secret");
    let mut marked = key.clone();
    marked[DEVELOPMENT_MEMBER] = json!(true);
    let mut nameless = jwk(&ed25519(), "k2");
    nameless.as_object_mut().expect("an object").remove("kid");
    let secret = json!({"kty": "oct", "k": "c2VjcmV0", "kid": "s"});
    let read = |value: Value| KeySet::read(value.to_string().as_bytes(), true).err();
    assert_eq!(read(json!({"keys": [key]})), None);
    assert_eq!(read(json!({"keys": []})), Some(jwks::JwksError::NoKey));
    assert_eq!(read(json!({"keys": [secret]})), Some(jwks::JwksError::Symmetric));
    assert_eq!(read(json!({"keys": [private]})), Some(jwks::JwksError::Private));
    assert_eq!(read(json!({"keys": [key, key]})), Some(jwks::JwksError::KeyIds));
    assert_eq!(read(json!({"keys": [key, nameless]})), Some(jwks::JwksError::KeyIds));
    assert_eq!(read(json!({"keys": [marked]})), Some(jwks::JwksError::Development));
    assert_eq!(KeySet::read(b"{\"keys\": [", true).err(), Some(jwks::JwksError::Form));
}

#[test]
fn the_cache_is_bounded_and_keeps_what_is_used() {
    let key = ed25519();
    let tokens = tokens(keys(&[jwk(&key, "k1")]));
    let verified = tokens.verify(eddsa(&claims(), &key).as_bytes()).expect("a good token");
    let cache = Cache::new(8);
    cache.insert(b"used", verified.clone());
    for n in 0..100_u8 {
        cache.insert(&[n], verified.clone());
        assert!(cache.get(b"used").is_some(), "after {n}");
    }
    let held = (0..100_u8).filter(|n| cache.get(&[*n]).is_some()).count();
    assert!(held <= 8, "{held}");
}
