//! The command line of Plasmon: see `plasmon --help`.

fn main() -> std::process::ExitCode {
    plasmon::cli::main()
}
