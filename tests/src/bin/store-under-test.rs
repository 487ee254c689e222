//! The daemon, exactly as `plasmon-store` is.

fn main() -> std::process::ExitCode {
    plasmon_store::main()
}
