//! The units of docs/operations.md, as printed: read by systemd, and their commands run by the users they are for.

use crate::{PLASMON, STORE};
use plasmon_tests::daemon::{Daemon, run};
use std::{
    fs,
    os::unix::fs::{PermissionsExt, chown},
    path::Path,
    process::Command,
};

const OPERATIONS: &str = include_str!("../../docs/operations.md");
const STORE_USER: u32 = 54_321;
const SERVICE_USER: u32 = 54_322;

/// A unit of the document, by where it says that the unit belongs.
fn unit(path: &str) -> &'static str {
    let (_, after) = OPERATIONS.split_once(&format!("`{path}`")).unwrap_or_else(|| panic!("{path} is there"));
    let (_, block) = after.split_once("```ini\n").expect("its text follows");
    block.split_once("```").expect("the block ends").0
}

/// What stands in a unit under this key, on one line.
fn setting(unit: &str, key: &str) -> String {
    let joined = unit.replace("\\\n", " ");
    let mut lines = joined.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('='));
    lines.next().unwrap_or_else(|| panic!("{key}= is in {unit}")).to_owned()
}

const UNITS: [&str; 3] = [
    "/etc/systemd/system/plasmon.service",
    "/etc/systemd/system/plasmon-metrics.service",
    "/etc/systemd/system/plasmon-metrics.timer",
];
const USER_UNIT: &str = "~/.config/systemd/user/plasmon.service";

/// systemd reads every line, and finds the programs where the document has them.
#[test]
fn systemd_takes_every_unit_of_the_document_as_it_is_printed() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let at = |path: &str| root.path().join(path.trim_start_matches('/'));
    for folder in ["etc/systemd/system", "usr/bin", "bin", "usr/lib/systemd", "home/.local/bin"] {
        fs::create_dir_all(at(folder)).expect("a new directory");
    }
    let (code, _, stderr) =
        run("cp", &["-r", "/usr/lib/systemd/system", &at("usr/lib/systemd").display().to_string()]);
    assert_eq!(code, 0, "{stderr}");
    for program in ["usr/bin/plasmon-store", "usr/bin/plasmon", "bin/sh", "home/.local/bin/plasmon-store"] {
        fs::write(at(program), "#!/bin/sh\n").expect("a new file");
        fs::set_permissions(at(program), fs::Permissions::from_mode(0o755)).expect("it is this user's");
    }
    let verify = |arguments: &[&str], broken: bool| {
        let done = Command::new("systemd-analyze")
            .args(arguments)
            .env("HOME", at("home"))
            .env("XDG_RUNTIME_DIR", root.path())
            .output()
            .expect("systemd is installed");
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        // What it says of other units of this machine is none of our business.
        let ours: Vec<&str> = said.lines().filter(|line| line.contains("plasmon")).collect();
        assert_eq!(ours.is_empty(), !broken, "{said}");
        assert_eq!(done.status.success(), !broken, "{said}");
    };
    let root_option = format!("--root={}", root.path().display());
    for path in UNITS {
        let name = path.rsplit('/').next().expect("a name");
        fs::write(at(path), unit(path)).expect("a new file");
        if name.ends_with("service") {
            verify(&["verify", "--man=no", &root_option, name], false);
        }
    }
    verify(&["verify", "--man=no", &root_option, "plasmon-metrics.timer"], false);
    let user_unit = at("home/plasmon.service");
    fs::write(&user_unit, unit(USER_UNIT)).expect("a new file");
    verify(&["verify", "--man=no", "--user", &user_unit.display().to_string()], false);
    // The check itself can fail.
    fs::write(at(UNITS[0]), unit(UNITS[0]).replace("Restart=on-failure", "Restart=sometimes"))
        .expect("a file");
    let done = run("systemd-analyze", &["verify", "--man=no", &root_option, "plasmon.service"]);
    assert!(done.2.contains("sometimes"), "{done:?}");
}

/// The machine's store, its services, root's command line, and root's timer.
#[test]
fn the_machines_unit_serves_the_services_it_names_and_roots_command_line_and_timer() {
    if !nix::unistd::getuid().is_root() {
        eprintln!("skipped: only root can start a process of another user");
        return;
    }
    let directory = tempfile::tempdir().expect("a temporary directory");
    let open = |path: &Path, mode: u32| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("it is this user's");
    };
    open(directory.path(), 0o755);
    let at = |name: &str| directory.path().join(name).display().to_string();
    for (program, name) in [(STORE, "plasmon-store"), (PLASMON, "plasmon")] {
        fs::copy(program, at(name)).expect("a copy");
        open(Path::new(&at(name)), 0o755);
    }
    // What systemd makes of User=, RuntimeDirectory= and RuntimeDirectoryMode=.
    let store_unit = unit(UNITS[0]);
    fs::create_dir(at("run")).expect("a new directory");
    let mode = u32::from_str_radix(&setting(store_unit, "RuntimeDirectoryMode"), 8).expect("a mode");
    open(Path::new(&at("run")), mode);
    chown(at("run"), Some(STORE_USER), Some(STORE_USER)).expect("this is root");
    let here = |line: &str| {
        line.replace("/usr/bin", at("").trim_end_matches('/'))
            .replace("/run/plasmon", &at("run"))
            .replace("/var/lib/node_exporter", &at("metrics"))
            .replace("%%", "%")
            .replace("www-data", &SERVICE_USER.to_string())
            .replace("dagster", "54323")
            .replace("PLASMON_TRUST_UID=plasmon", &format!("PLASMON_TRUST_UID={STORE_USER}"))
    };
    let command = here(&setting(store_unit, "ExecStart"));
    // A quarter of this machine is not the tests' to take.
    let command = command.replace("--size 25%", "--size 16MiB");
    let (command, socket) = command.split_once(" --socket ").expect("it names its socket");
    let (socket, allowed) = socket.trim().split_once(' ').expect("it admits others");
    let line = format!(
        "exec setpriv --reuid {STORE_USER} --regid {STORE_USER} --clear-groups {command} {} \"$@\"",
        allowed.trim()
    );
    let daemon = Daemon::start_at("sh", &["-c", &line, "sh"], Path::new(socket));

    let as_user = |uid: u32, arguments: &[&str]| {
        let uid = uid.to_string();
        let user = ["--reuid", &uid, "--regid", &uid, "--clear-groups"];
        run("setpriv", &[&user[..], &[at("plasmon").as_str(), "--socket", socket], arguments].concat())
    };
    fs::write(at("value.json"), "42").expect("a new file");
    open(Path::new(&at("value.json")), 0o644);
    let trusted = STORE_USER.to_string();
    let put = ["put", "answer", &at("value.json"), "--trust-uid", &trusted];
    let (code, _, stderr) = as_user(SERVICE_USER, &put);
    assert_eq!(code, 0, "{stderr}");
    let (code, _, stderr) = as_user(54_999, &put);
    assert!(code != 0 && stderr.contains("does not admit uid 54999"), "{stderr}");
    // Nobody trusts another user unasked, root neither; and the refusal says how to.
    let (code, _, stderr) = as_user(0, &["get", "answer"]);
    assert!(code != 0 && stderr.contains(&format!("--trust-uid {STORE_USER}")), "{stderr}");
    let (code, stdout, stderr) = as_user(0, &["--trust-uid", &trusted, "get", "answer"]);
    assert_eq!((code, stdout.trim()), (0, "42"), "{stderr}");

    // Root's timer, by what its service says.
    fs::create_dir(at("metrics")).expect("a new directory");
    let metrics = unit(UNITS[1]);
    let script = here(&setting(metrics, "ExecStart"));
    let script =
        script.strip_prefix("/bin/sh -c '").and_then(|script| script.strip_suffix('\'')).expect("a script");
    let environment = here(&setting(metrics, "Environment"));
    let variables: Vec<&str> = environment.split(' ').collect();
    let (code, _, stderr) = run("env", &[&variables, &["sh", "-c", script][..]].concat());
    assert_eq!(code, 0, "{stderr}");
    let figures = fs::read_to_string(at("metrics/plasmon.prom")).expect("the figures are there");
    assert!(figures.contains("plasmon_capacity_bytes 16777216"), "{figures}");

    let (status, log) = daemon.stop();
    assert!(status.success(), "{log:?}");
}
