//! `simpul debug profile`: where a node spends its processor time.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;
use tonic::Request;

use super::nodes::{self, Chosen};
use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::proto::operate::v1::ProfileCpuRequest;

/// The largest profile that is taken, bytes.
const LARGEST: usize = 64 * 1024 * 1024;

/// Watch where a node spends its processor time, in pprof's format
#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is watched, and nothing costs, at any other time. To be read with \
    `go tool pprof FILE` and others."
)]
pub(super) struct Profile {
    /// For how long
    #[arg(long, value_name = "N", default_value_t = 10,
          value_parser = clap::value_parser!(u8).range(1..=60))]
    seconds: u8,
    /// Samples for each second of processor time
    #[arg(long, value_name = "N", default_value_t = 99,
          value_parser = clap::value_parser!(u32).range(1..=999))]
    frequency: u32,
    /// The file, which must not be there yet; `-` for standard output
    #[arg(long, value_name = "FILE", default_value = "profile.pb.gz")]
    out: PathBuf,
    #[command(flatten)]
    chosen: Chosen,
}

impl Profile {
    /// Waits for it and writes it.
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let client = self.chosen.connect(env).await?;
        let duration = prost_types::Duration { seconds: self.seconds.into(), nanos: 0 };
        let request = ProfileCpuRequest { duration: Some(duration), frequency: self.frequency };
        let stream = client.operator().profile_cpu(Request::new(request)).await?.into_inner();
        let bytes = nodes::take(stream, |part| part.chunk, LARGEST, "profile").await?;
        nodes::write(&self.out, &bytes)?;
        if self.out.as_os_str() != "-" {
            let json = json!({"file": self.out, "bytes": bytes.len(), "seconds": self.seconds});
            let size = bytes.len().div_ceil(1024);
            env.output.say(&json, || format!("{} ({size} KiB)", self.out.display()))?;
        }
        Ok(Exit::Done)
    }
}
