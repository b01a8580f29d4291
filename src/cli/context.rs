//! `simpul context`: named nodes.

use clap::{Args, Subcommand};
use serde_json::{Value, json};

use super::contexts::{Context, File};
use super::env::Env;
use super::exit::Exit;
use super::failure::Failure;
use super::text::pairs;

/// Named nodes, so that the flags need not be repeated
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  \
    simpul context set prod --server simpul.example:7443 --ca ca.pem --token-file token\n  \
    simpul context use prod\n  simpul --context prod whoami")]
pub struct ContextCommand {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the contexts
    List,
    /// Show a context; the current one when no name is given
    Show {
        /// The context
        name: Option<String>,
    },
    /// Make a context the current one
    Use {
        /// The context
        name: String,
    },
    /// Make or change a context from the flags --server, --ca, --server-name, --cert,
    /// --key, --token-file, --data-dir and --as
    Set {
        /// The context
        name: String,
    },
    /// Remove a context
    Remove {
        /// The context
        name: String,
    },
}

impl ContextCommand {
    /// Reads or changes the file.
    pub fn run(self, env: &Env) -> Result<Exit, Failure> {
        let mut file = File::read()?;
        match self.command {
            Command::List => {
                let rows: Vec<_> = file
                    .context
                    .iter()
                    .map(|(name, context)| {
                        let current = file.current.as_ref() == Some(name);
                        let place = place(context);
                        let row = vec![mark(current), name.clone(), place];
                        (json_of(name, context, current), row)
                    })
                    .collect();
                env.output.list(&["", "NAME", "NODE"], &rows)?;
            }
            Command::Show { name } => {
                let name = name.or(file.current.clone()).ok_or_else(|| {
                    Failure::usage("there is no current context").hint("simpul context use NAME")
                })?;
                show(env, &file, &name)?;
            }
            Command::Use { name } => {
                find(&file, &name)?;
                file.current = Some(name.clone());
                file.write()?;
                show(env, &file, &name)?;
            }
            Command::Set { name } => {
                if !crate::id::is_short_name(&name) {
                    return Err(Failure::usage(format!("NAME {}", crate::id::SHORT_NAME_RULE)));
                }
                if env.global.token.is_some() {
                    return Err(Failure::usage("a context keeps no secret")
                        .hint("put the token into a file: --token-file FILE"));
                }
                merge(file.context.entry(name.clone()).or_default(), env)?;
                file.write()?;
                show(env, &file, &name)?;
            }
            Command::Remove { name } => {
                find(&file, &name)?;
                file.context.remove(&name);
                file.current = file.current.filter(|current| *current != name);
                file.write()?;
                env.output
                    .say(&json!({"name": name, "removed": true}), || format!("removed {name}"))?;
            }
        }
        Ok(Exit::Done)
    }
}

/// Takes over the flags that were given. Paths are kept absolute: the context
/// is used from other directories.
fn merge(context: &mut Context, env: &Env) -> Result<(), Failure> {
    let absolute = |path: &Option<std::path::PathBuf>| {
        path.as_ref()
            .map(std::path::absolute)
            .transpose()
            .map_err(|error| Failure::usage(format!("a path cannot be made absolute: {error}")))
    };
    let global = &env.global;
    if let Some(server) = &global.server {
        let servers = crate::client::servers::parse(server)?;
        let servers: Vec<String> = servers.iter().map(ToString::to_string).collect();
        context.server = Some(servers.join(","));
    }
    let new = Context {
        server: None,
        server_name: global.server_name.clone(),
        ca: absolute(&global.ca)?,
        cert: absolute(&global.cert)?,
        key: absolute(&global.cert_key)?,
        token_file: absolute(&global.token_file)?,
        data_dir: absolute(&global.data_dir)?,
        as_principal: global.as_principal.clone(),
    };
    context.server_name = new.server_name.or(context.server_name.take());
    context.ca = new.ca.or(context.ca.take());
    context.cert = new.cert.or(context.cert.take());
    context.key = new.key.or(context.key.take());
    context.token_file = new.token_file.or(context.token_file.take());
    context.data_dir = new.data_dir.or(context.data_dir.take());
    context.as_principal = new.as_principal.or(context.as_principal.take());
    Ok(())
}

fn find<'a>(file: &'a File, name: &str) -> Result<&'a Context, Failure> {
    file.context
        .get(name)
        .ok_or_else(|| Failure::usage(format!("no context {name}")).hint("simpul context list"))
}

fn place(context: &Context) -> String {
    match (&context.server, &context.data_dir) {
        (Some(server), _) => server.clone(),
        (None, Some(dir)) => dir.display().to_string(),
        (None, None) => "local".to_owned(),
    }
}

fn mark(current: bool) -> String {
    if current { "*".to_owned() } else { String::new() }
}

fn json_of(name: &str, context: &Context, current: bool) -> Value {
    json!({"name": name, "current": current, "context": context})
}

fn show(env: &Env, file: &File, name: &str) -> Result<(), Failure> {
    let context = find(file, name)?;
    let current = file.current.as_deref() == Some(name);
    env.output.say(&json_of(name, context, current), || {
        let path = |path: &Option<std::path::PathBuf>| {
            path.as_ref().map(|path| path.display().to_string()).unwrap_or_default()
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        let mut lines = vec![
            ("name", name.to_owned()),
            ("current", if current { "yes".to_owned() } else { "no".to_owned() }),
            ("server", text(&context.server)),
            ("server-name", text(&context.server_name)),
            ("ca", path(&context.ca)),
            ("cert", path(&context.cert)),
            ("key", path(&context.key)),
            ("token-file", path(&context.token_file)),
            ("data-dir", path(&context.data_dir)),
            ("as", text(&context.as_principal)),
        ];
        lines.retain(|(_, value)| !value.is_empty());
        pairs(&lines)
    })
}
