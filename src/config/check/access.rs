//! `[auth]`: who is believed, and how far.

use std::collections::BTreeSet;

use super::Broken;
use crate::config::schema::Auth;
use crate::principal::{Kind, Principal, Role};

pub(super) fn check(auth: &Auth, broken: &mut Broken) {
    broken.unless(!auth.audience.is_empty(), "auth.audience", "must not be empty");
    bundles(auth, broken);
    issuers(auth, broken);
    grant("auth.delegated_roles", &auth.delegated_roles, broken);
    for (index, service) in auth.may_delegate.iter().enumerate() {
        let is_service = service.parse::<Principal>().is_ok_and(|p| p.kind() == Kind::Service);
        let key = format!("auth.may_delegate[{index}]");
        broken.unless(is_service, &key, "must be service/id@trust-domain");
    }
    for (name, roles) in &auth.bindings {
        let key = format!("auth.bindings.\"{name}\"");
        principal(&key, name, broken);
        grant(&key, roles, broken);
    }
    for (name, members) in &auth.accounts {
        let key = format!("auth.accounts.\"{name}\"");
        principal(&key, name, broken);
        broken.unless(!members.is_empty(), &key, "must name who shares the account");
        for member in members {
            principal(&key, member, broken);
        }
    }
}

fn bundles(auth: &Auth, broken: &mut Broken) {
    for (index, ca) in auth.ca.iter().enumerate() {
        let at = |field: &str| format!("auth.ca[{index}].{field}");
        broken.file(&at("file"), &ca.file);
        kinds(&at("kinds"), &ca.kinds, broken);
        grant(&at("roles"), &ca.roles, broken);
        let within = ca.default_roles.iter().all(|role| ca.roles.contains(role));
        broken.unless(within, &at("default_roles"), "must be among the roles it may grant");
        for (path, kind) in &ca.paths {
            let sound = path.starts_with('/')
                && path.matches("<id>").count() == 1
                && path.split('/').any(|part| part == "<id>");
            broken.unless(
                sound,
                &at("paths"),
                "must be paths with one part <id>, as in /user/<id>",
            );
            let asserted = ca.kinds.contains(kind);
            broken.unless(asserted, &at("paths"), "must map to kinds that the bundle may assert");
        }
    }
}

fn issuers(auth: &Auth, broken: &mut Broken) {
    let mut seen = BTreeSet::new();
    for (index, issuer) in auth.issuer.iter().enumerate() {
        let at = |field: &str| format!("auth.issuer[{index}].{field}");
        broken.unless(!issuer.issuer.is_empty(), &at("issuer"), "must not be empty");
        let fresh = seen.insert(&issuer.issuer);
        broken.unless(fresh, &at("issuer"), "must not be given twice");
        broken.file(&at("jwks_file"), &issuer.jwks_file);
        kinds(&at("kinds"), &issuer.kinds, broken);
        grant(&at("roles"), &issuer.roles, broken);
        let named = issuer.audience.as_deref() != Some("");
        broken.unless(named, &at("audience"), "must not be empty");
    }
}

/// A source asserts at least one kind, and never nodes: those come only from
/// the mesh's own bundle.
fn kinds(key: &str, kinds: &[Kind], broken: &mut Broken) {
    broken.unless(!kinds.is_empty(), key, "must name at least one kind");
    broken.unless(!kinds.contains(&Kind::Node), key, "must not name node");
}

fn grant(key: &str, roles: &[Role], broken: &mut Broken) {
    broken.unless(!roles.contains(&Role::Node), key, "must not grant node");
}

fn principal(key: &str, text: &str, broken: &mut Broken) {
    let sound = text.parse::<Principal>().is_ok();
    broken.unless(sound, key, "must be written as kind/id@trust-domain");
}
