//! Orders that respect dependencies. Nodes are numbers; smaller ones come first among equals.

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap};

/// What each node waits for.
pub(super) type Edges = Vec<BTreeSet<usize>>;

/// Every node, those it waits for before it; and the nodes for which there is no such order, which come last: those on
/// a cycle, and those between cycles. What only waits for such nodes keeps its place behind them.
pub(super) fn order(edges: &Edges) -> (Vec<usize>, BTreeSet<usize>) {
    let all: BTreeSet<usize> = (0..edges.len()).collect();
    let followers = reverse(edges);
    let (mut sorted, stuck) = peel(&all, edges, &followers);
    // From the other side: what nobody stuck waits for is behind a cycle, not on one.
    let (mut behind, cyclic) = peel(&stuck, &followers, edges);
    sorted.extend(&cyclic);
    behind.reverse();
    sorted.extend(behind);
    (sorted, cyclic)
}

fn reverse(edges: &Edges) -> Edges {
    let mut followers = vec![BTreeSet::new(); edges.len()];
    for (node, waits_for) in edges.iter().enumerate() {
        for before in waits_for {
            followers[*before].insert(node);
        }
    }
    followers
}

/// Takes away, again and again, the smallest node of `nodes` that waits for none of the rest.
fn peel(nodes: &BTreeSet<usize>, edges: &Edges, followers: &Edges) -> (Vec<usize>, BTreeSet<usize>) {
    let mut open: Vec<usize> = edges.iter().map(|before| before.intersection(nodes).count()).collect();
    let mut free: BinaryHeap<Reverse<usize>> = nodes
        .iter()
        .filter(|node| open[**node] == 0)
        .map(|node| Reverse(*node))
        .collect();
    let mut rest = nodes.clone();
    let mut sorted = Vec::with_capacity(nodes.len());
    while let Some(Reverse(node)) = free.pop() {
        rest.remove(&node);
        sorted.push(node);
        for follower in followers[node].intersection(nodes) {
            open[*follower] -= 1;
            if open[*follower] == 0 {
                free.push(Reverse(*follower));
            }
        }
    }
    (sorted, rest)
}

/// One cycle among `cyclic` that can be reached from `start`: each node waits for the next, the last for the first.
pub(super) fn cycle(edges: &Edges, cyclic: &BTreeSet<usize>, start: usize) -> Vec<usize> {
    let mut walked = Vec::new();
    let mut node = start;
    loop {
        if let Some(at) = walked.iter().position(|known| *known == node) {
            return walked.split_off(at);
        }
        walked.push(node);
        match edges[node].iter().find(|next| cyclic.contains(*next)) {
            Some(next) => node = *next,
            None => return Vec::new(),
        }
    }
}

/// What `from` waits for, directly or not. Itself only if it is on a cycle.
pub(super) fn before(edges: &Edges, from: usize) -> Vec<bool> {
    let mut seen = vec![false; edges.len()];
    let mut open: Vec<usize> = edges[from].iter().copied().collect();
    while let Some(node) = open.pop() {
        if !std::mem::replace(&mut seen[node], true) {
            open.extend(&edges[node]);
        }
    }
    seen
}

/// Whether `from` waits for `to`, directly or not, or is the same.
pub(super) fn waits_for(edges: &Edges, from: usize, to: usize) -> bool {
    from == to || before(edges, from)[to]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn edges(of: &[&[usize]]) -> Edges {
        of.iter().map(|before| before.iter().copied().collect()).collect()
    }

    #[test]
    fn the_smaller_comes_first() {
        let (sorted, cyclic) = order(&edges(&[&[3], &[], &[1], &[1]]));
        assert_eq!(sorted, [1, 2, 3, 0]);
        assert!(cyclic.is_empty());
    }

    #[test]
    fn cycles_are_found() {
        // 0 waits for nothing; 1 and 2 for each other; 3 for 2; 4 for itself.
        let edges = edges(&[&[], &[2], &[0, 1], &[2], &[4]]);
        let (sorted, cyclic) = order(&edges);
        assert_eq!(sorted, [0, 1, 2, 4, 3]);
        assert_eq!(cyclic, BTreeSet::from([1, 2, 4]));
        assert_eq!(cycle(&edges, &cyclic, 1), [1, 2]);
        assert_eq!(cycle(&edges, &cyclic, 4), [4]);
    }

    #[test]
    fn waiting_is_transitive() {
        let edges = edges(&[&[1], &[2], &[], &[3]]);
        assert!(waits_for(&edges, 0, 2));
        assert!(!waits_for(&edges, 2, 0));
        assert!(waits_for(&edges, 3, 3));
    }
}
