//! `simpul token`: a development token for other clients.

use std::time::Duration;

use clap::Args;
use secrecy::ExposeSecret;
use serde_json::json;

use super::credentials::SignAs;
use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;
use super::target::data_dir;
use super::text::system_time;

/// Print a token signed with the development key
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  simpul token --as alice --ttl 1h\n  \
    simpul token --as service/shop --role backend\n  \
    grpcurl -cacert simpul-data/dev/ca.pem \\\n    \
    -H \"authorization: Bearer $(simpul token --as alice)\" 127.0.0.1:7443 list")]
pub struct Token {
    /// How long it lives
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration,
          default_value = "1h")]
    ttl: Duration,
}

impl Token {
    /// Signs and prints; nothing else goes to standard output.
    pub fn run(self, env: &Env) -> Result<Exit, Failure> {
        let who = env.global.as_principal.as_deref().ok_or_else(|| {
            Failure::usage("whom is the token for?").hint("simpul token --as alice")
        })?;
        let signer = SignAs::new(&env.global, who, data_dir(&env.global))?;
        let signed = signer.sign(self.ttl)?;
        let expires = std::time::SystemTime::now().checked_add(self.ttl);
        let roles: Vec<_> = signed.roles.iter().map(|role| role.as_str()).collect();
        let json = json!({
            "token": signed.token.expose_secret(),
            "principal": signed.principal.as_str(),
            "roles": roles,
            "expires_at": expires.map(system_time),
        });
        env.output.say(&json, || signed.token.expose_secret().to_owned())?;
        Ok(Exit::Done)
    }
}
