//! How values look: standard output, sizes, ages, aligned tables, JSON.

use crate::NamespaceInfo;
use std::{
    fmt,
    io::{self, BufWriter, IsTerminal, Stdout, Write},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

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
        terminal_size::terminal_size_of(self.stdout.get_ref()).map(|(columns, _)| columns.0.into())
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

/// A name on one line, without characters that a terminal would obey, and those that turn the direction of what follows.
pub(super) fn plain(text: &str) -> String {
    let turns = |c| matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let shown =
        |c: char| if c.is_control() || turns(c) { c.escape_default().to_string() } else { c.to_string() };
    text.chars().map(shown).collect()
}

/// `text` in at most `width` columns of a terminal.
pub(super) fn cut(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut left = width.saturating_sub(1);
    let fits = |c: &char| {
        let columns = c.width().unwrap_or(0);
        left.checked_sub(columns).inspect(|&rest| left = rest).is_some()
    };
    text.chars().take_while(fits).chain(['…']).collect()
}

/// `text` in at most `width` columns, without its middle: names often differ at both ends.
pub(super) fn cut_middle(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let tail_columns = width.saturating_sub(1) / 2;
    let mut columns = 0;
    let tail = text.char_indices().rev().map_while(|(at, c)| {
        columns += c.width().unwrap_or(0);
        (columns <= tail_columns).then_some(at)
    });
    let tail = &text[tail.last().unwrap_or(text.len())..];
    cut(text, width - tail.width()) + tail
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
    let widths: Vec<usize> = (0..columns.len()).map(|number| width(columns, rows, number)).collect();
    let line = |cells: &mut dyn Iterator<Item = &str>| {
        let cells = cells.zip(columns).zip(&widths).map(|((cell, column), &width)| {
            let blanks = " ".repeat(width.saturating_sub(cell.width()));
            match column {
                Column::Left(_) => format!("{cell}{blanks}"),
                Column::Right(_) => format!("{blanks}{cell}"),
            }
        });
        format!("{}\n", cells.collect::<Vec<_>>().join("  ").trim_end())
    };
    let mut text = line(&mut columns.iter().map(Column::heading));
    text.extend(rows.iter().map(|row| line(&mut row.iter().map(String::as_str))));
    text
}

/// As [`grid`], in lines of at most `line_columns` where a person is looking: `optional` columns, counted from the left,
/// are left out, the first of them first, then what is in column `long` is cut. A column that is cut keeps
/// [`CUT_COLUMNS_MIN`].
pub(super) fn fitting_grid(
    mut columns: Vec<Column>,
    mut rows: Vec<Vec<String>>,
    line_columns: Option<usize>,
    long: usize,
    optional: &[usize],
) -> String {
    let Some(line_columns) = line_columns else {
        return grid(&columns, &rows);
    };
    let wide = |columns: &[Column], rows: &[Vec<String>]| -> usize {
        (0..columns.len()).map(|number| width(columns, rows, number) + GAP_COLUMNS).sum::<usize>()
            - GAP_COLUMNS
    };
    let mut gone: Vec<usize> = Vec::new();
    for &number in optional {
        let others = wide(&columns, &rows)
            - width(&columns, &rows, long - gone.iter().filter(|&&it| it < long).count());
        if others + CUT_COLUMNS_MIN <= line_columns {
            break;
        }
        let at = number - gone.iter().filter(|&&it| it < number).count();
        columns.remove(at);
        rows.iter_mut().for_each(|row| drop(row.remove(at)));
        gone.push(number);
    }
    let long = long - gone.iter().filter(|&&it| it < long).count();
    let others = wide(&columns, &rows) - width(&columns, &rows, long);
    let left = line_columns.saturating_sub(others).max(CUT_COLUMNS_MIN);
    rows.iter_mut().for_each(|row| row[long] = cut_middle(&row[long], left));
    grid(&columns, &rows)
}

/// Between two columns.
const GAP_COLUMNS: usize = 2;

/// What a column that is cut keeps.
const CUT_COLUMNS_MIN: usize = 16;

/// Columns of a terminal that a column of a grid needs.
fn width(columns: &[Column], rows: &[Vec<String>], number: usize) -> usize {
    let widest = rows.iter().map(|row| row[number].width()).max().unwrap_or(0);
    columns[number].heading().width().max(widest)
}

/// How long names of a namespace live, if anything was declared.
pub(super) fn ttl_of(info: &NamespaceInfo) -> Option<Duration> {
    info.ttl.as_ref().map(|ttl| Duration::from_nanos(ttl.ttl_ns))
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
    fn a_grid_that_is_too_wide_loses_columns_and_then_the_middle_of_names() {
        let columns = || vec![left("NAME"), right("AGE"), right("VERSION")];
        let rows = || vec![vec!["a-name-that-is-long-2024".into(), "1 s".into(), "77".into()]];
        let lines = |width| fitting_grid(columns(), rows(), Some(width), 0, &[2]);
        assert_eq!(
            lines(38),
            "NAME                      AGE  VERSION\na-name-that-is-long-2024  1 s       77\n"
        );
        assert_eq!(lines(30), "NAME              AGE  VERSION\na-name-t…ng-2024  1 s       77\n");
        assert_eq!(lines(29), "NAME                      AGE\na-name-that-is-long-2024  1 s\n");
        assert_eq!(lines(1), "NAME              AGE\na-name-t…ng-2024  1 s\n");
    }

    #[test]
    fn wide_characters_take_two_columns() {
        let rows = vec![vec!["価格".into(), "x".into()], vec!["a".into(), "y".into()]];
        assert_eq!(grid(&[left("N"), left("S")], &rows), "N     S\n価格  x\na     y\n");
        assert_eq!((cut("価格表", 4), cut_middle("価格表価格表", 7)), ("価…".into(), "価格…表".into()));
        assert_eq!((cut("価格", 4), cut_middle("abcdefgh", 5)), ("価格".into(), "ab…gh".into()));
    }

    #[test]
    fn nothing_in_a_name_steers_the_terminal() {
        assert_eq!(plain("a\u{1b}[2J\nb"), "a\\u{1b}[2J\\nb");
        assert_eq!(plain("a\u{202e}bä\u{2069}"), "a\\u{202e}bä\\u{2069}");
        assert_eq!((cut("abc", 3), cut("abcd", 3)), ("abc".into(), "ab…".into()));
    }
}
