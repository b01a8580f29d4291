//! The node's configuration: its schema, where its values come from, and what
//! is wrong with them, all at once.
//!
//! Later sources win: the embedded defaults, the profile's embedded file, files
//! given by flag, `.env`, the environment, flags. Every source is first held
//! against the table of keys (`keys`), so that one bad value hides no other
//! and a problem names its key and source, never its value. Only then does
//! figment merge what is sound and the schema take it.

pub mod check;
mod environment;
mod keys;
mod kind;
mod layer;
mod problem;
pub mod schema;
mod show;

use std::path::{Path, PathBuf};

use figment::Figment;

pub use problem::{Problem, Problems};
pub use schema::Config;
pub use show::{Setting, otel_settings};

use layer::Layer;
use schema::Profile;

const DEFAULTS: &str = include_str!("../config/default.toml");
const DEVELOPMENT: &str = include_str!("../config/development.toml");
const PRODUCTION: &str = include_str!("../config/production.toml");

/// What the command line and the environment say about the configuration.
#[derive(Debug, Clone, Default)]
pub struct LoadArgs {
    /// `--profile`; wins over SIMPUL_PROFILE.
    pub profile: Option<String>,
    /// `--config`, in the order given: later files win.
    pub files: Vec<PathBuf>,
    /// `--env-file`, read instead of `.env`, and the only one that production
    /// reads.
    pub env_file: Option<PathBuf>,
    /// The process's environment.
    pub env: Vec<(String, String)>,
    /// Flags that set a key, as (`listen.public`, text).
    pub overrides: Vec<(String, String)>,
}

/// A sound configuration and where its values came from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The values.
    pub config: Config,
    /// The environment with `.env` below it: what telemetry reads its
    /// `OTEL_*` and `RUST_LOG` from.
    pub env: Vec<(String, String)>,
    figment: Figment,
}

/// Reads everything. `.env` lies in the working directory.
pub fn load(args: &LoadArgs) -> Result<Loaded, Problems> {
    load_in(Path::new("."), args)
}

/// [`load`] with the folder in which `.env` is looked for.
fn load_in(folder: &Path, args: &LoadArgs) -> Result<Loaded, Problems> {
    let mut problems = Problems::default();
    let profile = chosen_profile(args, &mut problems);
    let env = with_dotenv(folder, args, profile, &mut problems);
    let mut layers = vec![Layer::toml("the embedded default.toml", DEFAULTS, &mut problems)];
    layers.push(match profile {
        Profile::Development => {
            Layer::toml("the embedded development.toml", DEVELOPMENT, &mut problems)
        }
        Profile::Production => {
            Layer::toml("the embedded production.toml", PRODUCTION, &mut problems)
        }
    });
    for file in &args.files {
        layers.push(Layer::file(file, &mut problems));
    }
    for variable in &env {
        layers.extend(environment::layer(variable, &mut problems));
    }
    for (key, text) in &args.overrides {
        layers.push(Layer::text("a flag", key, text, &mut problems));
    }
    let figment = layers.into_iter().fold(Figment::new(), Figment::merge);
    let config = extract(&figment, &mut problems);
    if let Some(config) = &config {
        if config.profile != profile {
            let source = source_of(&figment, "profile");
            problems.add(
                "profile",
                &source,
                "must be the one chosen by --profile or SIMPUL_PROFILE",
            );
        }
        for (key, rule) in check::check(config) {
            problems.add(&key, &source_of(&figment, &key), rule);
        }
    }
    let env = env.into_iter().map(|variable| (variable.name, variable.value)).collect();
    match config {
        Some(config) if problems.is_empty() => Ok(Loaded { config, env, figment }),
        _ => Err(problems),
    }
}

/// The profile by flag, then by environment, then development.
fn chosen_profile(args: &LoadArgs, problems: &mut Problems) -> Profile {
    let by_env = args.env.iter().rev().find(|(name, _)| name == "SIMPUL_PROFILE");
    let (source, name) = match (&args.profile, by_env) {
        (Some(name), _) => ("--profile", name.as_str()),
        (None, Some((_, name))) => ("environment variable SIMPUL_PROFILE", name.as_str()),
        (None, None) => return Profile::Development,
    };
    match name {
        "development" => Profile::Development,
        "production" => Profile::Production,
        _ => {
            problems.add("profile", source, "must be development or production");
            Profile::Development
        }
    }
}

/// The environment, with the variables of `.env` below it.
fn with_dotenv(
    folder: &Path,
    args: &LoadArgs,
    profile: Profile,
    problems: &mut Problems,
) -> Vec<environment::Variable> {
    let path = match (&args.env_file, profile) {
        (Some(path), _) => Some(path.clone()),
        (None, Profile::Development) => Some(folder.join(".env")).filter(|path| path.exists()),
        (None, Profile::Production) => None,
    };
    let mut variables = path.map(|path| environment::dotenv(&path, problems)).unwrap_or_default();
    for (name, value) in &args.env {
        variables.retain(|variable| variable.name != *name);
        variables.push(environment::Variable::of_process(name, value));
    }
    variables
}

/// The schema's view of the merged values. What the table of keys let through
/// fits, so a failure here names its key and no more.
fn extract(figment: &Figment, problems: &mut Problems) -> Option<Config> {
    figment
        .extract()
        .map_err(|errors| {
            for error in errors {
                let key = error.path.join(".");
                let source =
                    error.metadata.as_ref().map_or("no source", |metadata| metadata.name.as_ref());
                problems.add(&key, source, "does not fit the schema");
            }
        })
        .ok()
}

/// Where the value of a key, or of the key that holds it, came from.
fn source_of(figment: &Figment, key: &str) -> String {
    let known = keys::KEYS.iter().find(|known| {
        key.strip_prefix(known.path)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with(['[', '.']))
    });
    let key = known.map_or(key, |known| known.path);
    figment
        .find_metadata(key)
        .map_or_else(|| "not set".to_owned(), |metadata| metadata.name.to_string())
}

#[cfg(test)]
mod tests;
