//! `simpul debug bundle`: what nodes know of themselves, in one file.

use std::path::PathBuf;

use clap::Args;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use serde_json::json;
use tonic::Request;

use super::nodes::{self, Chosen};
use crate::cli::env::Env;
use crate::cli::exit::Exit;
use crate::cli::failure::Failure;
use crate::cli::output::complain;
use crate::client::Client;
use crate::proto::operate::v1::CollectBundleRequest;

/// The largest bundle that is taken from one node, bytes.
const LARGEST: usize = 16 * 1024 * 1024;

/// Collect configuration (secrets masked), tasks, rooms, links, newest warnings and metrics
#[derive(Debug, Args)]
#[command(
    after_help = "The file is a tar archive compressed with gzip, one folder a node. It holds \
    ids and numbers, no text of a message, no token, no secret."
)]
pub(super) struct Bundle {
    #[command(flatten)]
    chosen: Chosen,
    /// Every running node of the cluster; one that cannot be reached is named
    #[arg(long, conflicts_with = "node")]
    all: bool,
    /// The file, which must not be there yet; `-` for standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Rooms that are listed at most, a node
    #[arg(long, value_name = "N", default_value_t = 1000,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rooms: u32,
}

impl Bundle {
    /// Collects and writes.
    pub(super) async fn run(self, env: &Env) -> Result<Exit, Failure> {
        let (bytes, collected, missing) = if self.all {
            self.everywhere(env).await?
        } else {
            let client = self.chosen.connect(env).await?;
            (self.from(&client).await?, 1, Vec::new())
        };
        let named = || format!("simpul-bundle-{}.tar.gz", jiff::Timestamp::now().as_second());
        let out = self.out.unwrap_or_else(|| named().into());
        nodes::write(&out, &bytes)?;
        if out.as_os_str() != "-" {
            let json = json!({
                "file": out, "bytes": bytes.len(), "nodes": collected, "missing": missing,
            });
            let size = bytes.len().div_ceil(1024);
            env.output
                .say(&json, || format!("{} ({collected} node(s), {size} KiB)", out.display()))?;
        }
        Ok(if missing.is_empty() { Exit::Done } else { Exit::Unavailable })
    }

    async fn from(&self, client: &Client) -> Result<Vec<u8>, Failure> {
        let request = Request::new(CollectBundleRequest { max_rooms: self.rooms });
        let stream = client.operator().collect_bundle(request).await?.into_inner();
        nodes::take(stream, |part| part.chunk, LARGEST, "bundle").await
    }

    /// One archive of all; those that are missing, by name.
    async fn everywhere(&self, env: &Env) -> Result<(Vec<u8>, usize, Vec<String>), Failure> {
        let client = env.connect().await?;
        let mut archive = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::default()));
        let (mut collected, mut missing) = (0, Vec::new());
        for node in nodes::running(&client).await? {
            let one = async { self.from(&nodes::reach(env, &node).await?).await };
            let taken = match one.await {
                Ok(bytes) => append(&mut archive, &bytes).map_err(Failure::from),
                Err(failure) => Err(failure),
            };
            match taken {
                Ok(()) => collected += 1,
                Err(failure) if failure.exit() == Exit::Permission => return Err(failure),
                Err(failure) => {
                    complain(&format!("* {}: {}", node.node_id, failure.message()));
                    missing.push(node.node_id);
                }
            }
        }
        let bytes = archive.into_inner().and_then(GzEncoder::finish)?;
        Ok((bytes, collected, missing))
    }
}

/// Takes one node's files over into another archive.
fn append(archive: &mut tar::Builder<GzEncoder<Vec<u8>>>, bundle: &[u8]) -> std::io::Result<()> {
    let mut from = tar::Archive::new(GzDecoder::new(bundle));
    for entry in from.entries()? {
        let mut entry = entry?;
        let mut header = entry.header().clone();
        let path = entry.path()?.into_owned();
        archive.append_data(&mut header, path, &mut entry)?;
    }
    Ok(())
}
