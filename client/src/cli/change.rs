//! What changes names, and what waits for a change: `rm`, `declare`, `rmns`, `wait`.

use super::{
    Context, lifetime, seconds,
    show::{count, lives, plain, took, ttl_of},
    trouble::Trouble,
};
use crate::{Error, NamespaceOptions};
use clap::Args;
use plasmon_protocol::name::Namespace;
use serde_json::json;
use std::{
    io::{self, BufRead, IsTerminal, Write},
    time::{Duration, Instant},
};

#[derive(Debug, Args)]
pub(super) struct Rm {
    /// Names to forget; their memory is free once nobody holds it
    #[arg(required = true, add = clap_complete::ArgValueCompleter::new(super::completions::names))]
    names: Vec<String>,

    /// Do not mind names that are not bound
    #[arg(long)]
    missing_ok: bool,
}

impl Rm {
    pub(super) fn run(&self, context: &mut Context) -> Result<(), Trouble> {
        let brain = context.brain()?;
        let (mut removed, mut missing) = (Vec::new(), Vec::new());
        for name in &self.names {
            if brain.forget(name)? { removed.push(name.clone()) } else { missing.push(name.clone()) }
        }
        if context.common.json {
            context.out.json(&json!({ "removed": removed, "missing": missing }))?;
        }
        if missing.is_empty() || self.missing_ok {
            return Ok(());
        }
        let namespace = brain.namespace().to_owned();
        Err(Trouble::NothingToForget { namespace, names: missing, forgotten: removed.len() })
    }
}

#[derive(Debug, Args)]
pub(super) struct Declare {
    /// Namespace, which is made if it is new. What was declared for it before does not count any more
    #[arg(value_name = "NAMESPACE", add = clap_complete::ArgValueCompleter::new(super::completions::namespaces))]
    target: String,

    /// When room is short, names that were not recalled for longest may go
    #[arg(long)]
    cache: bool,

    #[command(flatten)]
    lifetime: Lifetime,
}

/// How long names live.
#[derive(Debug, Args)]
pub(super) struct Lifetime {
    /// Time to live, such as 90s, 10m, 1.5h or 7d: then the name is gone [default: what its namespace has declared, if
    /// anything]
    #[arg(long, value_name = "TIME", value_parser = lifetime)]
    pub(super) ttl: Option<Duration>,

    /// Every recall begins the time anew
    #[arg(long, requires = "ttl")]
    pub(super) sliding: bool,
}

impl Declare {
    pub(super) fn run(&self, context: &mut Context) -> Result<(), Trouble> {
        let Declare { target, cache, lifetime: Lifetime { ttl, sliding } } = self;
        let mut options = NamespaceOptions::new();
        if *cache {
            options = options.cache();
        }
        if let Some(ttl) = *ttl {
            options = if *sliding { options.sliding_ttl(ttl) } else { options.ttl(ttl) };
        }
        let brain = context.brain()?;
        brain.in_namespace(target)?.declare(&options)?;
        // What the store itself was started with (`plasmon-store --cache`) holds whatever is declared.
        let namespace = target.clone();
        let found = brain.namespaces()?.into_iter().find(|info| info.namespace.as_str() == target);
        let info = found.ok_or(Error::NamespaceNotFound { namespace })?;
        let (cache, ttl) = (info.is_cache, ttl_of(&info));
        let sliding = info.ttl.as_ref().is_some_and(|ttl| ttl.is_sliding);
        if context.common.json {
            let ttl_s = ttl.map(|ttl| ttl.as_secs_f64());
            let document = json!({ "namespace": target, "cache": cache, "ttl_s": ttl_s, "sliding": sliding });
            return Ok(context.out.json(&document)?);
        }
        let kind = if cache { "a cache" } else { "no cache" };
        Ok(context.out.line(format!("{target}: {kind}; names live {}", lives(ttl, sliding)))?)
    }
}

#[derive(Debug, Args)]
pub(super) struct Rmns {
    /// Namespace to remove
    #[arg(value_name = "NAMESPACE", add = clap_complete::ArgValueCompleter::new(super::completions::namespaces))]
    target: String,

    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

impl Rmns {
    pub(super) fn run(&self, context: &mut Context) -> Result<(), Trouble> {
        if self.target == Namespace::DEFAULT {
            let what =
                "the namespace \"default\" cannot be removed; forget its names with plasmon rm NAME...";
            return Err(Trouble::Usage(what.to_owned()));
        }
        let brain = context.brain()?.in_namespace(&self.target)?;
        if !self.yes {
            let names = count(brain.len()?, "name");
            confirm("", &format!("remove the namespace {} with {names}?", self.target))?;
        }
        let names = brain.remove_namespace()?;
        if context.common.json {
            return Ok(context.out.json(&json!({ "namespace": self.target, "names": names }))?);
        }
        Ok(context.out.line(format!("{}: removed with {}", self.target, count(names, "name")))?)
    }
}

#[derive(Debug, Args)]
pub(super) struct Wait {
    /// Name to wait for
    #[arg(add = clap_complete::ArgValueCompleter::new(super::completions::names))]
    name: String,

    /// Longest time to wait [default: without end]
    #[arg(long, value_name = "TIME", value_parser = seconds)]
    timeout: Option<Duration>,

    /// Wait for a version above this one
    #[arg(long, value_name = "VERSION", default_value_t = 0)]
    after: u64,
}

impl Wait {
    pub(super) fn run(&self, context: &mut Context) -> Result<(), Trouble> {
        let began = Instant::now();
        let brain = context.brain()?;
        let version = brain.wait(&self.name, self.after, self.timeout.unwrap_or(Duration::MAX))?;
        let waited = began.elapsed();
        if context.common.json {
            let document = json!({
                "namespace": brain.namespace(), "name": self.name, "version": version,
                "waited_s": waited.as_secs_f64(),
            });
            return Ok(context.out.json(&document)?);
        }
        let name = plain(&self.name);
        Ok(context.out.line(format!("{name}: version {version} after {}", took(waited)))?)
    }
}

/// Shows the person at the terminal what it is about, and asks; refuses where there is none.
pub(super) fn confirm(about: &str, question: &str) -> Result<(), Trouble> {
    let (stdin, mut stderr) = (io::stdin(), io::stderr());
    if !stdin.is_terminal() || !stderr.is_terminal() {
        return Err(Trouble::Usage(format!("{question} Say --yes: there is no terminal to ask at")));
    }
    write!(stderr, "{about}{question} [y/N] ")?;
    stderr.flush()?;
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") { Ok(()) } else { Err(Trouble::Declined) }
}
