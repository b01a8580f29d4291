//! The configuration as the flags ask for it. In a file of its own because
//! client commands too ask it for the data directory.

use std::time::SystemTime;

use secrecy::ExposeSecret;

use super::args::Global;
use super::failure::Failure;
use crate::config::{self, Config, LoadArgs, Loaded, Problems};
use crate::security::mesh::Mesh;
use crate::security::{Security, SecurityProblem};
use crate::store::datadir;
use crate::store::location::{self, Location};
use crate::store::sqlite::share::{name, unshareable};

/// Loads it: files, environment, and flags as the last word. `more` are keys
/// that a command has flags of its own for.
pub fn load(global: &Global, more: &[(&str, String)]) -> Result<Loaded, Problems> {
    config::load(&arguments(global, more, std::env::vars_os()))
}

fn arguments(
    global: &Global,
    more: &[(&str, String)],
    env: impl Iterator<Item = (std::ffi::OsString, std::ffi::OsString)>,
) -> LoadArgs {
    let mut overrides = global.set.clone();
    if let Some(dir) = &global.data_dir {
        overrides.push(("data_dir".to_owned(), dir.display().to_string()));
    }
    overrides.extend(more.iter().map(|(key, value)| ((*key).to_owned(), value.clone())));
    LoadArgs {
        profile: global.profile.clone(),
        files: global.config.clone(),
        env_file: global.env_file.clone(),
        // What is not UTF-8 is none of ours.
        env: env
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect(),
        overrides,
    }
}

/// What `serve` would refuse in what a sound configuration names: files, keys, a
/// cluster's mesh, the data directory, the engine of the store. Nothing is made or written.
pub fn unfit(config: &Config) -> Vec<SecurityProblem> {
    let dir = std::path::absolute(&config.data_dir).unwrap_or_else(|_| config.data_dir.clone());
    let now = SystemTime::now();
    let mut problems = Security::check(config, &dir, now);
    if config.is_clustered() {
        problems.extend(Mesh::check(config, &dir, now));
    }
    if let Err(error) = datadir::look(&dir) {
        problems.push(SecurityProblem::new("data_dir", error));
    }
    match location::of(config.store.url.expose_secret(), &dir) {
        Err(error) => problems.push(SecurityProblem::new("store.url", error)),
        Ok(Location::Sqlite(file)) => {
            // What is not there yet, or not to be seen, cannot be looked at.
            if let Ok(Some(reason)) = name::linked(&file) {
                problems.push(SecurityProblem::new("store.url", reason));
            }
            if config.cluster.shared_file
                && let Ok(Some(reason)) = unshareable(&file)
            {
                problems.push(SecurityProblem::new("cluster.shared_file", reason));
            }
        }
        Ok(Location::Postgres) => {}
    }
    problems
}

/// All problems at once, as one failure.
pub fn refuse(problems: &Problems) -> Failure {
    Failure::usage(problems.to_string().trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_the_last_word_and_their_own_flags_the_very_last() {
        let global = Global {
            data_dir: Some("d".into()),
            set: vec![("a.b".into(), "1".into())],
            profile: Some("production".into()),
            ..Global::default()
        };
        let env = [("X".into(), "y".into())].into_iter();
        let args = arguments(&global, &[("listen.public", "[::]:1".into())], env);
        let keys: Vec<&str> = args.overrides.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["a.b", "data_dir", "listen.public"]);
        assert_eq!(args.profile.as_deref(), Some("production"));
        assert_eq!(args.env, [("X".to_owned(), "y".to_owned())]);
    }
}
