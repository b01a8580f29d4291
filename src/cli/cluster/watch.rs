//! The screen of `simpul cluster status --watch`: what is wrong first, then the
//! nodes, what changed last, links and owners. Pure.
//!
//! It is drawn over the one before, line by line, so that nothing flickers and
//! the terminal's history stays as it is; it never has more lines or columns
//! than the terminal.

mod changes;
mod problems;

use super::view::{LINK_HEAD, NODE_HEAD, OWNER_HEAD, link_rows, node_rows, owner_rows};
use crate::cli::text::{plain, table, time};
use crate::proto::cluster::v1::{Cluster, NodeState};

pub(super) use self::changes::Changes;

/// How much is shown, and whether in colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Paper {
    /// Columns.
    pub(super) columns: usize,
    /// Rows.
    pub(super) rows: usize,
    /// Whether in colour.
    pub(super) colour: bool,
}

/// How a line stands out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Look {
    Plain,
    Head,
    Good,
    Notice,
    Wrong,
}

impl Look {
    fn code(self) -> &'static str {
        match self {
            Look::Plain => "",
            Look::Head => "\u{1b}[1m",
            Look::Good => "\u{1b}[32m",
            Look::Notice => "\u{1b}[33m",
            Look::Wrong => "\u{1b}[1;31m",
        }
    }
}

type Line = (Look, String);

impl Paper {
    /// The terminal's, as standard output is; what it does not say is taken to
    /// be usual.
    pub(super) fn of_terminal() -> Self {
        let size = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
        let size = size.filter(|size| size.ws_col > 0 && size.ws_row > 0);
        let (columns, rows) = size.map_or((80, 24), |it| (it.ws_col.into(), it.ws_row.into()));
        let colour = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { columns, rows, colour }
    }

    /// The lines as they go to the terminal, over what stands there. Below the
    /// last one nothing is left.
    fn draw(self, mut lines: Vec<Line>) -> String {
        // The last row stays free for the cursor.
        let most = self.rows.saturating_sub(1).max(1);
        if lines.len() > most {
            let hidden = lines.len() - (most - 1);
            lines.truncate(most - 1);
            lines.push((Look::Notice, format!("… {hidden} more lines")));
        }
        let mut out = String::from("\u{1b}[H");
        for (at, (look, text)) in lines.into_iter().enumerate() {
            if at > 0 {
                out.push('\n');
            }
            let text = clip(&text, self.columns);
            match look.code() {
                code if self.colour && !code.is_empty() => {
                    out.push_str(code);
                    out.push_str(&text);
                    out.push_str("\u{1b}[0m");
                }
                _ => out.push_str(&text),
            }
            out.push_str("\u{1b}[K");
        }
        out.push_str("\u{1b}[J");
        out
    }
}

/// A text that fits into so many columns.
fn clip(text: &str, columns: usize) -> String {
    if text.chars().count() <= columns {
        return text.to_owned();
    }
    let mut clipped: String = text.chars().take(columns.saturating_sub(1)).collect();
    clipped.push('…');
    clipped
}

/// What is wrong, in words.
pub(super) fn problems(cluster: &Cluster, changes: &Changes) -> Vec<String> {
    problems::all(cluster, changes).into_iter().map(|problem| problem.text).collect()
}

/// The whole screen.
pub(super) fn screen(cluster: &Cluster, changes: &Changes, paper: Paper) -> String {
    let mut lines = vec![(Look::Head, title(cluster))];
    let problems = problems::all(cluster, changes);
    if problems.is_empty() {
        lines.push((Look::Good, "all is well".to_owned()));
    }
    lines.extend(problems.into_iter().map(|problem| (problem.look(), problem.text)));
    let looks = cluster.nodes.iter().map(|node| match node.state() {
        NodeState::Live => Look::Plain,
        NodeState::Draining => Look::Notice,
        NodeState::Left | NodeState::Unspecified => Look::Plain,
        NodeState::Dead => Look::Wrong,
    });
    lines.extend(block(&NODE_HEAD, &node_rows(cluster), looks));
    if !changes.is_empty() {
        lines.push((Look::Plain, String::new()));
        lines.push((Look::Head, "LAST CHANGES".to_owned()));
        lines.extend(changes.lines().map(|line| (Look::Plain, line)));
    }
    let looks = cluster.links.iter().map(|link| match link.connections {
        0 => Look::Wrong,
        _ => Look::Plain,
    });
    lines.extend(block(&LINK_HEAD, &link_rows(cluster), looks));
    let owners = owner_rows(cluster);
    let looks: Vec<Look> = owners
        .iter()
        .map(|row| match row.first().map(String::as_str) {
            Some("nobody") => Look::Wrong,
            _ => Look::Plain,
        })
        .collect();
    lines.extend(block(&OWNER_HEAD, &owners, looks.into_iter()));
    paper.draw(lines)
}

fn title(cluster: &Cluster) -> String {
    let live = cluster.nodes.iter().filter(|node| node.state() == NodeState::Live);
    let sessions: u64 = live.clone().map(|node| u64::from(node.sessions)).sum();
    let at = time(cluster.observed_at.as_ref());
    format!(
        "{}: {} live, {} partitions, {sessions} sessions; as {} saw it at {}",
        plain(&cluster.name),
        live.count(),
        cluster.partitions.len(),
        plain(&cluster.answered_by),
        at.get(..19).unwrap_or(&at),
    )
}

/// A table below an empty line; nothing without rows.
fn block(head: &[&str], rows: &[Vec<String>], looks: impl Iterator<Item = Look>) -> Vec<Line> {
    if rows.is_empty() {
        return Vec::new();
    }
    let text = table(head, rows);
    let looks = [Look::Plain, Look::Head].into_iter().chain(looks);
    let texts = std::iter::once("").chain(text.lines());
    looks.chain(std::iter::repeat(Look::Plain)).zip(texts.map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests;
