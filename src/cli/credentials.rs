//! What proves the caller: a token that was given, one in a file, or one that
//! is signed here with the development key.

use std::path::{Path, PathBuf};
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use tonic::metadata::{Ascii, MetadataValue};

use super::args::Global;
use super::configuration;
use super::exit::Exit;
use super::failure::Failure;
use crate::client::renewal::Tokens;
use crate::principal::{Principal, Role, TrustDomain};
use crate::security::development::{self, TokenRequest};

/// How long a token lives that a command signs for itself. A chat that lives
/// longer goes on with a fresh one, other streams come back with it.
const OWN_TTL: Duration = Duration::from_secs(3600);

/// A way to a bearer token.
#[derive(Debug, Clone)]
pub enum Credential {
    /// None: a client certificate, or a public method.
    None,
    /// As given.
    Token(SecretString),
    /// In a file, read at each connection.
    File(PathBuf),
    /// Signed at each connection.
    Signed(Box<SignAs>),
}

/// Whom to sign for, and with which key.
#[derive(Debug, Clone)]
pub struct SignAs {
    /// The data directory with the development key.
    pub data_dir: PathBuf,
    /// Whom the token names.
    pub principal: Principal,
    /// What it may do.
    pub roles: Vec<Role>,
    /// For whom it is.
    pub audience: String,
}

/// A signed token and whom it names.
#[derive(Debug)]
pub struct Signed {
    /// The token.
    pub token: SecretString,
    /// Whom it names.
    pub principal: Principal,
    /// What it may do.
    pub roles: Vec<Role>,
}

impl Credential {
    /// The first that is given of a token, a file, and a principal to sign for.
    pub fn choose(
        global: &Global,
        token_file: Option<PathBuf>,
        as_principal: Option<String>,
        data_dir: PathBuf,
    ) -> Result<Self, Failure> {
        if let Some(token) = &global.token {
            return Ok(Credential::Token(token.clone().into()));
        }
        match (token_file, as_principal) {
            (Some(file), _) => Ok(Credential::File(file)),
            (None, Some(who)) => {
                Ok(Credential::Signed(Box::new(SignAs::new(global, &who, data_dir)?)))
            }
            (None, None) if global.roles.is_empty() => Ok(Credential::None),
            (None, None) => Err(Failure::usage("--role goes with --as")),
        }
    }

    /// A token, fresh where it can be had afresh.
    pub fn token(&self) -> Result<Option<SecretString>, Failure> {
        Ok(Some(match self {
            Credential::None => return Ok(None),
            Credential::Token(token) => token.clone(),
            Credential::File(path) => read_token(path)?,
            Credential::Signed(signer) => signer.sign(OWN_TTL)?.token,
        }))
    }

    /// A token as the header's value; secret.
    pub fn header(token: &SecretString) -> Result<MetadataValue<Ascii>, Failure> {
        let header = format!("Bearer {}", token.expose_secret().trim());
        let mut value: MetadataValue<Ascii> = header
            .parse()
            .map_err(|_| Failure::usage("the token has characters that no token has"))?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl Tokens for Credential {
    fn token(&self) -> Option<SecretString> {
        Credential::token(self).ok().flatten()
    }

    fn is_renewable(&self) -> bool {
        matches!(self, Credential::File(_) | Credential::Signed(_))
    }
}

impl SignAs {
    /// A principal in the configuration's trust domain. `--role` adds to the
    /// two roles that everybody has in development.
    pub fn new(global: &Global, who: &str, data_dir: PathBuf) -> Result<Self, Failure> {
        let (domain, audience) = audience(global)?;
        let principal = Principal::parse_in(who, &domain)
            .map_err(|error| Failure::usage(format!("--as {error}")))?;
        // The node knows callers of its own key in its own trust domain alone: a
        // token for another would quietly name somebody else.
        let named = principal.trust_domain();
        if named != domain {
            return Err(Failure::usage(format!(
                "--as {who} is of another trust domain: the development key signs for {domain} \
                 alone (auth.trust_domain)"
            )));
        }
        let mut roles = development::DEFAULT_ROLES.to_vec();
        for role in &global.roles {
            if !roles.contains(role) {
                roles.push(*role);
            }
        }
        Ok(Self { data_dir, principal, roles, audience })
    }

    /// A token that lives so long from now.
    pub fn sign(&self, ttl: Duration) -> Result<Signed, Failure> {
        let request = TokenRequest {
            principal: &self.principal,
            roles: &self.roles,
            audience: &self.audience,
            ttl,
        };
        let token = development::sign_token(&self.data_dir, &request).map_err(|error| {
            Failure::new(Exit::Permission, format!("--as cannot sign a token: {error}"))
                .hint("the first start of a development node makes the key: simpul serve")
        })?;
        Ok(Signed { token, principal: self.principal.clone(), roles: self.roles.clone() })
    }
}

/// The trust domain and the audience of development tokens. A configuration that
/// is not sound otherwise has the defaults here: its own commands say why.
fn audience(global: &Global) -> Result<(TrustDomain, String), Failure> {
    if let Ok(loaded) = configuration::load(global, &[]) {
        return Ok((loaded.config.auth.trust_domain, loaded.config.auth.audience));
    }
    let domain = "dev.simpul".parse().map_err(|error| Failure::usage(format!("{error}")))?;
    Ok((domain, "simpul".to_owned()))
}

fn read_token(path: &Path) -> Result<SecretString, Failure> {
    std::fs::read_to_string(path)
        .map(SecretString::from)
        .map_err(|error| Failure::usage(format!("cannot read {}: {error}", path.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_file_is_trimmed_and_its_value_is_secret() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("token");
        std::fs::write(&file, "abc.def\n").expect("written");
        let token = Credential::File(file).token().expect("read").expect("a token");
        let value = Credential::header(&token).expect("ASCII");
        assert_eq!(value.to_str().expect("ascii"), "Bearer abc.def");
        assert!(value.is_sensitive());
        let missing = Credential::File(dir.path().join("none")).token().expect_err("missing");
        assert_eq!(missing.exit(), Exit::Usage);
    }

    #[test]
    fn a_role_without_a_principal_is_refused() {
        let global = Global { roles: vec![Role::Support], ..Global::default() };
        let failure = Credential::choose(&global, None, None, PathBuf::new()).expect_err("nobody");
        assert_eq!(failure.message(), "--role goes with --as");
    }

    #[test]
    fn another_trust_domain_is_refused_and_not_replaced() {
        let signer = |who: &str| SignAs::new(&Global::default(), who, PathBuf::new());
        let failure = signer("alice@other.domain").expect_err("another domain");
        assert_eq!(failure.exit(), Exit::Usage);
        assert!(failure.message().contains("dev.simpul"), "{}", failure.message());
        assert!(signer("service/shop@dev.simpul").is_ok());
    }

    #[test]
    fn signing_without_a_key_says_how_to_get_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let signer = SignAs::new(&Global::default(), "alice", dir.path().into()).expect("parsed");
        assert_eq!(signer.principal.as_str(), "user/alice@dev.simpul");
        let failure = signer.sign(OWN_TTL).expect_err("no key");
        assert_eq!(failure.exit(), Exit::Permission);
        assert!(failure.render(false).is_some_and(|text| text.contains("simpul serve")));
    }
}
