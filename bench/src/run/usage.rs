//! What processes cost: CPU time, memory, open files and threads, as `/proc` tells them.

use std::fs;
use std::path::{Path, PathBuf};

/// Of all processes of a group together.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    pub(crate) processes: u64,
    pub(crate) cpu_seconds: f64,
    pub(crate) rss_bytes: u64,
    /// The highest that `rss_bytes` was, each process on its own; shared pages count in each.
    pub(crate) peak_bytes: u64,
    pub(crate) fds: u64,
    pub(crate) threads: u64,
}

impl Usage {
    /// Both together.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            processes: self.processes + other.processes,
            cpu_seconds: self.cpu_seconds + other.cpu_seconds,
            rss_bytes: self.rss_bytes + other.rss_bytes,
            peak_bytes: self.peak_bytes + other.peak_bytes,
            fds: self.fds + other.fds,
            threads: self.threads + other.threads,
        }
    }
}

/// What every process of `group` uses. One that has ended and was not waited for still tells its CPU time.
pub(crate) fn of_group(group: u32) -> Usage {
    let mut sum = Usage::default();
    for (dir, stat) in members(group) {
        sum.processes += 1;
        sum.cpu_seconds += stat.ticks as f64 / rustix::param::clock_ticks_per_second() as f64;
        let status = fs::read_to_string(dir.join("status")).unwrap_or_default();
        sum.rss_bytes += kilobytes(&status, "VmRSS:");
        sum.peak_bytes += kilobytes(&status, "VmHWM:");
        sum.threads += field(&status, "Threads:");
        sum.fds += fs::read_dir(dir.join("fd")).map_or(0, |fds| fds.count() as u64);
    }
    sum
}

/// Lets the peak of memory of each process of `group` begin anew.
pub(crate) fn reset_peak(group: u32) {
    for (dir, _) in members(group) {
        // 5 means the peak (proc(5)). Where we may not, the peak is that of the process's life.
        let _ = fs::write(dir.join("clear_refs"), "5");
    }
}

/// Whether a process has ended that was not waited for yet.
pub(crate) fn has_ended(pid: u32) -> bool {
    read_stat(&Path::new("/proc").join(pid.to_string())).is_none_or(|stat| matches!(stat.state, 'Z' | 'X'))
}

/// Whether a process of `group` lives; one that was not waited for does not.
pub(crate) fn has_living(group: u32) -> bool {
    members(group).iter().any(|(_, stat)| !matches!(stat.state, 'Z' | 'X'))
}

struct Stat {
    state: char,
    group: u32,
    ticks: u64,
}

fn members(group: u32) -> Vec<(PathBuf, Stat)> {
    let dirs = fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let numbered = dirs.filter(|dir| dir.file_name().to_string_lossy().starts_with(|first: char| first.is_ascii_digit()));
    numbered.filter_map(|dir| Some((dir.path(), read_stat(&dir.path())?))).filter(|(_, stat)| stat.group == group).collect()
}

fn read_stat(dir: &Path) -> Option<Stat> {
    parse_stat(&fs::read_to_string(dir.join("stat")).ok()?)
}

/// The fields of proc(5) that count; the name before them may hold anything, a parenthesis too.
fn parse_stat(line: &str) -> Option<Stat> {
    let (_, rest) = line.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<u64>().ok();
    Some(Stat { state: fields.first()?.chars().next()?, group: fields.get(2)?.parse().ok()?, ticks: number(11)? + number(12)? })
}

fn kilobytes(status: &str, key: &str) -> u64 {
    field(status, key) * 1024
}

fn field(status: &str, key: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(key));
    line.and_then(|rest| rest.split_whitespace().next()?.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_parenthesis_does_not_shift_the_fields() {
        let stat = parse_stat("7 (a) b) S 1 42 42 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 1 0").unwrap();
        assert_eq!((stat.state, stat.group, stat.ticks), ('S', 42, 300));
    }

    #[test]
    fn we_ourselves_use_memory_and_files() {
        let own = read_stat(Path::new("/proc/self")).unwrap();
        let usage = of_group(own.group);
        assert!(usage.processes > 0 && usage.rss_bytes > 0 && usage.peak_bytes >= usage.rss_bytes, "{usage:?}");
        assert!(usage.fds > 0 && usage.threads > 0, "{usage:?}");
    }
}
