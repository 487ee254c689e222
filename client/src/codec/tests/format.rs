//! The bytes of every kind are a promise.

use super::*;

/// The Arrow form of every kind is a promise to other versions and other languages. A change needs new files beside
/// these: `PLASMON_WRITE_GOLDEN=1 cargo test -p plasmon golden` writes those that are missing.
#[test]
fn golden_files_of_every_kind_are_unchanged() -> TestResult {
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src/codec/golden"));
    for (name, file, header) in samples() {
        let path = folder.join(format!("{name}.arrow"));
        if !path.exists() && std::env::var_os("PLASMON_WRITE_GOLDEN").is_some() {
            fs::create_dir_all(folder)?;
            fs::write(&path, file.as_slice())?;
        }
        let golden = fs::read(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        assert!(golden == file.as_slice(), "{name}: the format has changed");
        assert_eq!(header.kind.name().as_deref(), name.split('-').next());
    }
    Ok(())
}
