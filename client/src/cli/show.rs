//! How values look: standard output, sizes, ages, aligned tables, JSON.

use std::{
    fmt,
    io::{self, BufWriter, IsTerminal, Stdout, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// Standard output, which remembers that its reader has gone.
#[derive(Debug)]
pub(super) struct Out {
    stdout: BufWriter<Stdout>,
    broken: bool,
}

impl Out {
    pub(super) fn new() -> Out {
        Out { stdout: BufWriter::with_capacity(64 << 10, io::stdout()), broken: false }
    }

    /// Whether a person is looking.
    pub(super) fn is_terminal(&self) -> bool {
        self.stdout.get_ref().is_terminal()
    }

    /// Whether the reader has gone.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Columns there are for a line, where a person is looking.
    pub(super) fn columns(&self) -> Option<usize> {
        if !self.is_terminal() {
            return None;
        }
        terminal_size::terminal_size().map(|(columns, _)| columns.0.into())
    }

    pub(super) fn json(&mut self, document: &serde_json::Value) -> io::Result<()> {
        let text = format!("{document:#}\n");
        self.write_all(text.as_bytes())
    }

    pub(super) fn line(&mut self, line: impl fmt::Display) -> io::Result<()> {
        self.write_all(format!("{line}\n").as_bytes())
    }

    pub(super) fn finish(&mut self) -> io::Result<()> {
        self.flush()
    }

    fn noted<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let Err(error) = &result {
            self.broken |= error.kind() == io::ErrorKind::BrokenPipe;
        }
        result
    }
}

impl Write for Out {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let result = self.stdout.write(bytes);
        self.noted(result)
    }

    fn flush(&mut self) -> io::Result<()> {
        let result = self.stdout.flush();
        self.noted(result)
    }
}

/// A number of bytes as people read it: `1.5 GiB`, exact below 1 KiB.
#[derive(Clone, Copy, Debug)]
pub(super) struct Human(pub(super) u64);

impl fmt::Display for Human {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Human(bytes) = *self;
        let (unit, shift) = match bytes {
            0..0x400 => return f.pad(&format!("{bytes} B")),
            0x400..0x10_0000 => ("KiB", 10),
            0x10_0000..0x4000_0000 => ("MiB", 20),
            0x4000_0000..0x100_0000_0000 => ("GiB", 30),
            _ => ("TiB", 40),
        };
        let (whole, tenths) = (bytes >> shift, ((bytes & ((1 << shift) - 1)) * 10) >> shift);
        f.pad(&format!("{whole}.{tenths} {unit}"))
    }
}

/// A length of time as people read it, in one unit.
pub(super) fn age(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds / 60),
        7_200..172_800 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// How long a name lives, behind "lives".
pub(super) fn lives(ttl: Option<Duration>, sliding: bool) -> String {
    match ttl {
        None => "without end".to_owned(),
        Some(ttl) => {
            let from = if sliding { " from their last recall" } else { "" };
            format!("{}{from}", lifetime(ttl))
        }
    }
}

/// A time to live: exact below a minute.
pub(super) fn lifetime(ttl: Duration) -> String {
    if ttl < Duration::from_secs(60) { format!("{} s", ttl.as_secs_f64()) } else { age(ttl.as_secs()) }
}

/// When something expires.
pub(super) fn expiry(at: Option<SystemTime>) -> String {
    let left = |at: SystemTime| at.duration_since(SystemTime::now()).unwrap_or_default();
    at.map_or_else(|| "never".to_owned(), |at| format!("in {}", age(left(at).as_secs())))
}

/// A stretch of time that a command took.
pub(super) fn took(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 0.001 => format!("{:.0} µs", seconds * 1e6),
        seconds if seconds < 1.0 => format!("{:.1} ms", seconds * 1e3),
        seconds => format!("{seconds:.2} s"),
    }
}

/// Seconds since `then`; 0 if the clock has been set back since.
pub(super) fn seconds_since(then: SystemTime) -> u64 {
    then.elapsed().unwrap_or_default().as_secs()
}

/// Seconds since 1970, for JSON.
pub(super) fn unix_seconds(then: SystemTime) -> f64 {
    then.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

/// `count thing`, or `count things`.
pub(super) fn count(count: u64, thing: &str) -> String {
    format!("{count} {thing}{}", if count == 1 { "" } else { "s" })
}

/// A name on one line, without characters that a terminal would obey.
pub(super) fn plain(text: &str) -> String {
    let shown = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// `text` in at most `width` characters.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(1)).chain(['…']).collect()
}

/// A column of a grid: its heading, and the side its cells stand at.
#[derive(Clone, Debug)]
pub(super) enum Column {
    Left(String),
    Right(String),
}

impl Column {
    fn heading(&self) -> &str {
        match self {
            Column::Left(heading) | Column::Right(heading) => heading,
        }
    }
}

pub(super) fn left(heading: &str) -> Column {
    Column::Left(heading.to_owned())
}

pub(super) fn right(heading: &str) -> Column {
    Column::Right(heading.to_owned())
}

/// Rows under headings, each column as wide as it must be.
pub(super) fn grid(columns: &[Column], rows: &[Vec<String>]) -> String {
    let chars = |text: &str| text.chars().count();
    let widest = |number: usize| rows.iter().map(|row| chars(&row[number])).max().unwrap_or(0);
    let widths: Vec<usize> = columns
        .iter()
        .enumerate()
        .map(|(number, column)| chars(column.heading()).max(widest(number)))
        .collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.zip(columns).zip(&widths).map(|((cell, column), &width)| match column {
            Column::Left(_) => format!("{cell:<width$}"),
            Column::Right(_) => format!("{cell:>width$}"),
        });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut text = line(&mut columns.iter().map(Column::heading));
    text.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_ages_have_one_unit() {
        assert_eq!(Human(1_023).to_string(), "1023 B");
        assert_eq!(Human(50_000_000).to_string(), "47.6 MiB");
        assert_eq!(Human(u64::MAX).to_string(), "16777215.9 TiB");
        assert_eq!((age(59), age(3_600), age(864_000)), ("59 s".into(), "60 min".into(), "10 d".into()));
    }

    #[test]
    fn columns_are_aligned_and_lines_have_no_blank_ends() {
        let rows =
            vec![vec!["a".into(), "10".into(), "x".into()], vec!["long".into(), "9".into(), String::new()]];
        assert_eq!(
            grid(&[left("NAME"), right("N"), left("END")], &rows),
            "NAME   N  END\na     10  x\nlong   9\n"
        );
    }

    #[test]
    fn nothing_in_a_name_steers_the_terminal() {
        assert_eq!(plain("a\u{1b}[2J\nb"), "a\\u{1b}[2J\\nb");
        assert_eq!((cut("abc", 3), cut("abcd", 3)), ("abc".into(), "ab…".into()));
    }
}
