//! `simpul health`: whether a node serves, as its probes see it.

use clap::Args;
use serde_json::json;
use tonic::Request;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;

use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;

/// Ask whether the node serves; exit code 69 when it does not
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  simpul health\n  \
    simpul health --service simpul.chat.v1.ChatService --watch")]
pub struct Health {
    /// One service by its full name; the whole node when left out
    #[arg(long, value_name = "SERVICE", default_value = "")]
    service: String,
    /// Go on, with a line at each change
    #[arg(long)]
    pub(super) watch: bool,
}

impl Health {
    /// Asks and prints.
    pub async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = env.connect().await?;
        let request = HealthCheckRequest { service: self.service.clone() };
        if !self.watch {
            let answer = client.health().check(client.unary(request)).await?.into_inner();
            return self.show(env, answer.status());
        }
        let mut stream = client.health().watch(Request::new(request)).await?.into_inner();
        let mut exit = Exit::Unavailable;
        while let Some(answer) = stream.message().await? {
            exit = self.show(env, answer.status())?;
        }
        Ok(exit)
    }

    fn show(&self, env: &Env, status: ServingStatus) -> Result<Exit, Failure> {
        let word = status.as_str_name();
        env.output.say(&json!({"service": self.service, "status": word}), || word.to_owned())?;
        Ok(if status == ServingStatus::Serving { Exit::Done } else { Exit::Unavailable })
    }
}
