//! The `simpul` command.

fn main() -> std::process::ExitCode {
    simpul::cli::main()
}
