use std::time::Duration;

use super::*;
use crate::principal::Role;

fn principal(text: &str) -> Principal {
    text.parse().expect("a principal")
}

fn roles(roles: &[Role]) -> Roles {
    roles.iter().copied().collect()
}

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn certificate(text: &str) -> PeerCertificate {
    PeerCertificate {
        principal: principal(text),
        roles: roles(&[Role::Backend]),
        not_after: now() + Duration::from_secs(30),
        thumbprint: [7; 32],
    }
}

fn token(text: &str, bound_to: Option<[u8; 32]>) -> Verified {
    let caller = Caller {
        principal: principal(text),
        roles: roles(&[Role::Customer]),
        acting_service: None,
        proof: Proof::Token,
    };
    Verified::for_tests(caller, now() + Duration::from_secs(60), bound_to)
}

fn delegation() -> Delegation {
    Delegation {
        may_delegate: HashSet::from([principal("service/shop@corp.test")]),
        delegated_roles: roles(&[Role::Customer]),
        bindings: Arc::default(),
        domains: HashSet::from([principal("user/x@corp.test").trust_domain()]),
    }
}

fn prove(
    token: Option<&Verified>,
    certificate: Option<&PeerCertificate>,
    on_behalf_of: Option<&str>,
) -> Result<Option<Proven>, Reason> {
    let presented = Presented { token, certificate, on_behalf_of };
    delegation().prove(&presented, now()).map_err(|refusal| refusal.reason)
}

/// Who it is, and who acts.
fn names(proven: Result<Option<Proven>, Reason>) -> Result<(String, Option<String>), Reason> {
    let proven = proven?.expect("somebody");
    let acting = proven.caller.acting_service.as_ref().map(ToString::to_string);
    Ok((proven.caller.principal.to_string(), acting))
}

fn own(text: &str) -> Result<(String, Option<String>), Reason> {
    Ok((text.to_owned(), None))
}

fn acting(user: &str, service: &str) -> Result<(String, Option<String>), Reason> {
    Ok((user.to_owned(), Some(service.to_owned())))
}

const ALICE: &str = "user/alice@corp.test";
const BOB: &str = "user/bob@corp.test";
const SHOP: &str = "service/shop@corp.test";
const OTHER: &str = "service/other@corp.test";

#[test]
fn one_proof_alone_names_its_holder() {
    assert!(prove(None, None, None).expect("nothing is no error").is_none());
    assert_eq!(names(prove(Some(&token(ALICE, None)), None, None)), own(ALICE));
    assert_eq!(names(prove(None, Some(&certificate(SHOP)), None)), own(SHOP));
    assert_eq!(prove(None, None, Some("alice")).err(), Some(Reason::CredentialsMissing));
}

#[test]
fn token_and_certificate_follow_the_rule() {
    let both = |token_of: &str, certificate_of: &str| {
        names(prove(Some(&token(token_of, None)), Some(&certificate(certificate_of)), None))
    };
    assert_eq!(both(ALICE, ALICE), own(ALICE));
    assert_eq!(both(SHOP, SHOP), own(SHOP));
    assert_eq!(both(ALICE, SHOP), acting(ALICE, SHOP));
    assert_eq!(both(ALICE, BOB), Err(Reason::ProofMismatch));
    assert_eq!(both(ALICE, "user/alice@else.test"), Err(Reason::ProofMismatch));
    assert_eq!(both(ALICE, "node/n1@corp.test"), Err(Reason::ProofMismatch));
    assert_eq!(both(ALICE, OTHER), Err(Reason::DelegationDenied));
    assert_eq!(both(OTHER, SHOP), Err(Reason::DelegationDenied));

    let proven = prove(Some(&token(ALICE, None)), Some(&certificate(SHOP)), None);
    let proven = proven.expect("allowed").expect("somebody");
    assert_eq!(proven.caller.roles, roles(&[Role::Customer]), "never united");
    assert_eq!(proven.caller.proof, Proof::TokenAndCertificate);
    assert_eq!(proven.expires_at, now() + Duration::from_secs(30), "the first end counts");
}

#[test]
fn a_bound_token_needs_its_certificate() {
    let right = token(ALICE, Some([7; 32]));
    let wrong = token(ALICE, Some([8; 32]));
    assert_eq!(names(prove(Some(&right), Some(&certificate(ALICE)), None)), own(ALICE));
    let mismatch = Some(Reason::ProofMismatch);
    assert_eq!(prove(Some(&wrong), Some(&certificate(ALICE)), None).err(), mismatch);
    assert_eq!(prove(Some(&right), None, None).err(), mismatch);
}

#[test]
fn a_service_acts_for_users_when_it_may() {
    let as_shop = |user: &str| names(prove(None, Some(&certificate(SHOP)), Some(user)));
    assert_eq!(as_shop("alice"), acting(ALICE, SHOP));
    assert_eq!(as_shop("user/alice@corp.test"), acting(ALICE, SHOP));
    for bad in ["service/other", "alice@else.test", "", "a b", "node/n1"] {
        assert!(as_shop(bad).is_err(), "{bad:?}");
    }
    let denied = Some(Reason::DelegationDenied);
    assert_eq!(prove(None, Some(&certificate(OTHER)), Some("alice")).err(), denied);
    assert_eq!(prove(Some(&token(BOB, None)), None, Some("alice")).err(), denied);
    // Who acts for one user by token cannot act for another by name.
    let pair = prove(Some(&token(ALICE, None)), Some(&certificate(SHOP)), Some("bob"));
    assert_eq!(pair.err(), denied);
    let delegated = prove(None, Some(&certificate(SHOP)), Some("alice"));
    let delegated = delegated.expect("allowed").expect("somebody");
    assert_eq!(delegated.caller.roles, roles(&[Role::Customer]), "not the service's own");
}

#[test]
fn what_is_over_proves_nothing() {
    let mut old = certificate(ALICE);
    old.not_after = now();
    assert_eq!(prove(None, Some(&old), None).err(), Some(Reason::CertificateExpired));
    // A good token beside it does not help.
    let good = token(ALICE, None);
    assert_eq!(prove(Some(&good), Some(&old), None).err(), Some(Reason::CertificateExpired));
}
