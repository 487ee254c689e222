//! The command line, exactly as `plasmon` is.

fn main() -> std::process::ExitCode {
    plasmon::cli::main()
}
