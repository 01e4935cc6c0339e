//! Two texts line by line, as `diff -u` shows them.

/// Lines shown around a change.
const AROUND: usize = 3;

/// A table of this many cells is made at most (16 MiB); larger changes are shown as one.
const MAX_CELLS: usize = 4 << 20;

/// A line that stayed, went or came.
type Step<'a> = (char, &'a str);

/// Empty where they are the same.
pub(super) fn unified(before: &str, after: &str) -> String {
    let (old, new): (Vec<&str>, Vec<&str>) = (before.lines().collect(), after.lines().collect());
    let steps = steps(&old, &new);
    let changed = |at: usize| steps.get(at).is_some_and(|(kind, _)| *kind != ' ');
    let shown = |at: usize| (at.saturating_sub(AROUND)..=at + AROUND).any(changed);
    let (mut text, mut at, mut left, mut right) = (String::new(), 0, 1, 1);
    while at < steps.len() {
        if !shown(at) {
            (at, left, right) = (at + 1, left + 1, right + 1);
            continue;
        }
        let end = (at..steps.len())
            .find(|at| !shown(*at))
            .unwrap_or(steps.len());
        let count = |but: char| {
            steps[at..end]
                .iter()
                .filter(|(kind, _)| *kind != but)
                .count()
        };
        let (olds, news) = (count('+'), count('-'));
        let place = format!("@@ -{left},{olds} +{right},{news} @@\n");
        text.push_str(&place);
        for (kind, line) in &steps[at..end] {
            text.push(*kind);
            text.push_str(line);
            text.push('\n');
        }
        (at, left, right) = (end, left + olds, right + news);
    }
    text
}

/// By the longest common subsequence of lines.
fn steps<'a>(old: &[&'a str], new: &[&'a str]) -> Vec<Step<'a>> {
    let width = new.len() + 1;
    if (old.len() + 1).saturating_mul(width) > MAX_CELLS {
        let gone = old.iter().map(|line| ('-', *line));
        return gone.chain(new.iter().map(|line| ('+', *line))).collect();
    }
    let mut table = vec![0_u32; (old.len() + 1) * width];
    for i in (0..old.len()).rev() {
        for j in (0..new.len()).rev() {
            table[i * width + j] = if old[i] == new[j] {
                table[(i + 1) * width + j + 1] + 1
            } else {
                table[(i + 1) * width + j].max(table[i * width + j + 1])
            };
        }
    }
    let (mut i, mut j, mut steps) = (0, 0, Vec::new());
    while i < old.len() || j < new.len() {
        if i < old.len() && j < new.len() && old[i] == new[j] {
            steps.push((' ', old[i]));
            (i, j) = (i + 1, j + 1);
        } else if j == new.len()
            || (i < old.len() && table[(i + 1) * width + j] >= table[i * width + j + 1])
        {
            steps.push(('-', old[i]));
            i += 1;
        } else {
            steps.push(('+', new[j]));
            j += 1;
        }
    }
    steps
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changed() {
        assert_eq!(unified("a\nb\n", "a\nb\n"), "");
        assert_eq!(
            unified("a\nb\nc\n", "a\nx\nc\n"),
            "@@ -1,3 +1,3 @@\n a\n-b\n+x\n c\n"
        );
        let far = "1\n2\n3\n4\n5\n6\n";
        assert_eq!(
            unified(far, &format!("{far}7\n")),
            "@@ -4,3 +4,4 @@\n 4\n 5\n 6\n+7\n"
        );
    }
}
